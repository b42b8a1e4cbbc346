"""Mean attention distance against loops, and where it is known beforehand."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import MixingBlock
from vitrail.explain.chart import distance_chart
from vitrail.explain.distance import attention_distance, even_distance, mean_distance
from vitrail.explain.geometry import cell_size
from vitrail.explain.maps import attention_maps
from vitrail.explain.token_map import BlockContext, TokenMap
from vitrail.grid import Grid


class Given(TokenMap):
    """A map of all tokens with probabilities written down by hand."""

    def __init__(self, grid: Grid, probabilities: torch.Tensor, image_size: tuple[int, int]):
        super().__init__(
            BlockContext(MixingBlock("by hand", 0, 0, nn.Identity(), "0"), grid, image_size),
            torch.arange(grid.tokens)[None],
        )
        self.given = probabilities

    @property
    def probabilities(self) -> torch.Tensor:
        return self.given[:, None]


def with_loops(map) -> torch.Tensor:
    """Query by query, key by key, over the dense map."""
    dense, grid, (height, width) = map.dense().double(), map.grid, map.cell
    result = torch.zeros(dense.shape[:2], dtype=torch.float64)
    for b in range(dense.shape[0]):
        for h in range(dense.shape[1]):
            for i in range(grid.h * grid.w):
                row = dense[b, h, grid.prefix + i, grid.prefix :]
                far = 0.0
                for j in range(grid.h * grid.w):
                    dy = (i // grid.w - j // grid.w) * height
                    dx = (i % grid.w - j % grid.w) * width
                    far += float(row[j]) * (dy**2 + dx**2) ** 0.5
                result[b, h] += far / float(row.sum()) / (grid.h * grid.w)
    return result


@pytest.mark.parametrize("kind", ["vit", "deit", "swin", "swin timm", "swin masked", "nat", "dinat"])
def test_distance_is_the_double_sum(build, kind):
    images = torch.randn(2, 3, 28, 20) if kind not in ("vit", "deit") else torch.randn(2, 3, 64, 48)
    model = build(kind)
    with attention_maps(model) as maps, torch.no_grad():
        model(images)
    for map in maps:
        assert torch.allclose(mean_distance(map).double(), with_loops(map), rtol=1e-4, atol=1e-6)
    measured = attention_distance(model, images)
    assert [one.block.name for one in measured] == [map.name for map in maps]
    assert torch.allclose(measured[-1].pixels, mean_distance(maps[-1]).mean(0))


def test_known_distances():
    grid = Grid(1, 2, prefix=1)
    itself, other, everything = torch.eye(3), torch.eye(3)[[0, 2, 1]], torch.full((3, 3), 1 / 3)
    map = Given(grid, torch.stack([itself, other, everything])[None], image_size=(16, 32))
    assert mean_distance(map).tolist() == [pytest.approx([0, 16, 8])]


def test_attention_to_the_class_token_alone_has_no_distance_and_no_nan():
    only_class = torch.eye(3)[[0, 0, 0]]
    map = Given(Grid(1, 2, prefix=1), only_class[None, None], image_size=(16, 32))
    assert mean_distance(map).tolist() == [[0]]


@pytest.mark.parametrize("patch", [1, 2, 4, 7, 14, 16, 32])
def test_cells_have_the_size_of_the_patch_where_images_are_whole_multiples(patch):
    for rows in range(1, 12):
        for columns in range(1, 12):
            assert cell_size((rows * patch, columns * patch), Grid(rows, columns)) == (patch, patch)


@pytest.mark.parametrize("patch", [2, 4, 16, 32])
def test_cells_have_the_size_of_the_patch_where_the_image_was_padded(patch):
    for extent in range(2 * patch + 1, 9 * patch):
        assert cell_size((extent, 4 * patch), Grid(-(-extent // patch), 4)) == (patch, patch)


@pytest.mark.parametrize("image", [(64, 64), (48, 96)])
def test_even_attention_is_as_far_as_the_mean_of_all_pairs(image):
    cells = image[0] // 4, image[1] // 4
    tokens = cells[0] * cells[1]
    map = Given(Grid(*cells), torch.full((1, 1, tokens, tokens), 1 / tokens), image)
    assert even_distance(image) == pytest.approx(float(mean_distance(map)), rel=0.01)


def test_the_chart_is_an_image(attending, images):
    chart = distance_chart(attention_distance(attending, images), (48, 36)).image()
    assert chart.mode == "RGB" and chart.width > 400
    assert len(chart.getcolors(2**16) or []) > 20


def test_a_model_without_attention_has_no_distance(without_attention):
    with pytest.raises(VitrailError, match="no softmax attention"):
        attention_distance(without_attention, torch.randn(1, 3, 64, 64))
