"""Tiles: a partition of the image, equal to the whole inside, bounded memory, and the measured seam error."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vitrail.errors import ResourceError, VitrailError
from vitrail.models import create_model
from vitrail.parts.restorer_reach import reach
from vitrail.tasks.tiling import fitting_tile, plan_tiles, run_tiles

SIZES = [(1, 1), (1, 200), (75, 101), (64, 64), (65, 129)]


def tiled(model, image: Tensor, scale: int = 1, **plan) -> tuple[Tensor, object]:
    height, width = image.shape[-2:]
    strips: list[Tensor] = []

    def write(row: int, strip: Tensor) -> None:
        assert row == sum(each.shape[1] for each in strips)  # from top to bottom, each row once
        strips.append(strip)

    seams = run_tiles(plan_tiles(height, width, scale=scale, **plan), lambda y, x: image[..., y, x], model, write)
    return torch.cat(strips, 1), seams


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blend", [False, True])
def test_a_pixelwise_model_does_not_see_the_tiles(size: tuple[int, int], blend: bool) -> None:
    image = torch.rand(1, 2, *size)
    out, seams = tiled(lambda x: 3 * x, image, tile=32, halo=4, multiple=4, blend=blend)
    torch.testing.assert_close(out, 3 * image[0])
    assert seams.largest == 0


@pytest.mark.parametrize("tile", [24, 32, 40])
def test_spans_are_a_partition_on_the_grid(tile: int) -> None:
    for length in range(1, 150):
        spans = plan_tiles(length, 1, tile, halo=8, multiple=8).rows
        assert spans[0].first == 0 and spans[-1].last == length
        assert all(one.last == other.first for one, other in pairwise(spans))
        assert all(span.start % 8 == 0 and span.stop - span.start <= tile for span in spans)
        assert all(span.start <= max(span.first - 8, 0) and span.stop >= min(span.last + 8, length) for span in spans)


def small(name: str, **sizes):
    model = create_model(name, **{"dim": 12, "depths": (2, 2), "num_heads": 2, **sizes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", ["swinir_light_x2", "swinir_gray_jpeg"])
@pytest.mark.parametrize("size", [(75, 101), (1, 300)])
def test_exact_tiles_equal_the_whole_image(name: str, size: tuple[int, int]) -> None:
    model = small(name)
    image, halo = torch.rand(1, model.config.in_channels, *size), reach(model)
    plan = {"tile": 2 * halo + 2 * model.multiple, "halo": halo, "multiple": model.multiple}
    out, _ = tiled(model, image, model.scale, **plan)
    whole = model(image)[0]
    assert (out - whole).abs().max() <= 1e-5 * max(1.0, float(whole.abs().max()))


@torch.no_grad()
def test_a_smaller_halo_is_not_exact() -> None:
    model = small("swinir_light_x2")
    image, halo, window = torch.rand(1, 3, 72, 72), reach(model), model.multiple
    out, _ = tiled(model, image, 2, tile=40, halo=halo - 2 * window, multiple=window)
    assert (out - model(image)[0]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["swinir_light_x2", "swinir_gray_jpeg"])
def test_the_receptive_field_is_measured_within_the_formula(name: str) -> None:
    model = small(name)
    middle, window = 8 * model.multiple, model.multiple
    image = torch.rand(1, model.config.in_channels, 2 * middle, 2 * middle)
    furthest = 0.0
    for place in range(middle, middle + window):
        other = image.clone()
        other[..., place, place] += 1
        changed = (model(other) - model(image)).abs().amax((0, 1)).amax(1).nonzero()[:, 0] // model.scale
        furthest = max(furthest, float((changed - place).abs().max()))
    assert furthest <= reach(model) < furthest + 2 * window


def test_the_seam_error_is_the_disagreement_of_neighbours() -> None:
    def blurred(x: Tensor) -> Tensor:
        return avg_pool2d(x, 31, stride=1, padding=15)  # zero padding: tiles are dark at their edges

    image = torch.ones(1, 1, 96, 96)
    _, near = tiled(blurred, image, tile=64, halo=4, blend=True)
    _, far = tiled(blurred, image, tile=64, halo=30, blend=True)
    assert near.rms > 0.05 and near.largest > near.rms and far.rms < 1e-6  # type: ignore[attr-defined]


def test_tiles_follow_the_budget_and_too_small_ones_are_refused() -> None:
    assert fitting_tile(2**20, 1024, halo=4, multiple=8) == 32
    with pytest.raises(ResourceError, match="--tiling fast"):
        fitting_tile(2**20, 1024, halo=16, multiple=8)
    with pytest.raises(VitrailError, match="no room"):
        plan_tiles(100, 100, tile=16, halo=8)


def test_progress_can_cancel() -> None:
    class Stop(Exception):
        pass

    def progress(done: int, count: int) -> None:
        assert count == 9
        if done == 2:
            raise Stop

    plan = plan_tiles(40, 40, tile=16, halo=0)
    with pytest.raises(Stop):
        run_tiles(plan, lambda y, x: torch.zeros(1, 1, 40, 40)[..., y, x], lambda x: x, lambda row, x: None, progress)
