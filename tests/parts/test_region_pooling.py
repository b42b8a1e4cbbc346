"""RoIAlign as a product of a sparse matrix: torchvision's values and gradients, regions at and over the border."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from vitrail.parts.detection.region_pooling import RegionPool

NAMES = ["0", "1", "2"]


def pyramid(channels: int, images: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    sizes = [(24, 40), (12, 20), (6, 10)]
    return {
        name: torch.randn(images, channels, *size, dtype=dtype, requires_grad=True)
        for name, size in zip(NAMES, sizes, strict=True)
    }


def regions(count: int, dtype: torch.dtype) -> torch.Tensor:
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([150.0, 90.0])
    side = torch.rand(count, 2, dtype=dtype) ** 3 * 160
    return torch.cat((corner, corner + side), dim=1)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("bins", "samples"), [(7, 2), (14, 2), (3, 1)])
def test_values_and_gradients_are_those_of_torchvision(levels, dtype, limit, bins, samples):
    x, sizes = pyramid(5, 2, dtype), [(96, 160), (90, 150)]
    boxes = [regions(40, dtype), regions(23, dtype)]
    outside = torch.tensor([[-20.0, -9.0, 5.0, 3.0], [150.0, 90.0, 190.0, 120.0], [7.0, 7.0, 7.0, 7.0]], dtype=dtype)
    boxes[1] = torch.cat((boxes[1], outside))
    found = [pool(NAMES[:levels], bins, samples)(x, boxes, sizes) for pool in (MultiScaleRoIAlign, RegionPool)]
    assert (found[0] - found[1]).abs().max() <= limit * found[0].abs().max()
    weight = torch.randn_like(found[0])
    given = [x[name] for name in NAMES[:levels]]
    for theirs, ours in zip(*(torch.autograd.grad((y * weight).sum(), given) for y in found), strict=True):
        assert (theirs - ours).abs().max() <= 10 * limit * theirs.abs().max().clamp(min=1)


def test_images_without_regions():
    x, sizes = pyramid(4, 2, torch.float32), [(96, 160)] * 2
    pool = RegionPool(NAMES, 7, 2)
    none = torch.zeros(0, 4)
    assert pool(x, [none, none], sizes).shape == (0, 4, 7, 7)
    one = regions(3, torch.float32)
    assert torch.equal(pool(x, [none, one], sizes), pool({k: v[1:] for k, v in x.items()}, [one], sizes[1:]))


def test_the_scale_follows_the_longer_side():
    x = {"0": torch.arange(1000.0).expand(1, 1, 8, 1000).clone()}  # a 1 x 4000 image, padded to 32 rows
    y = RegionPool(["0"], 1, 1)(x, [torch.tensor([[400.0, 0.0, 800.0, 1.0]])], [(1, 4000)])
    assert float(y) == pytest.approx(150.0)


def test_strides_hold_for_images_with_a_remainder():
    """A level of 3 cells for 65 pixels has cells of 32; by its sizes alone it would be taken for one of 16."""
    x = {"0": torch.arange(3.0).expand(1, 1, 3, 3).clone()}
    boxes, sizes = [torch.tensor([[32.0, 32.0, 64.0, 64.0]])], [(65, 65)]
    pool = RegionPool(["0"], 1, 1, strides=(32,))
    assert float(pool(x, boxes, sizes)) == 1.5
    assert float(MultiScaleRoIAlign.forward(pool, x, boxes, sizes)) == 1.5  # the way of other devices
    assert float(RegionPool(["0"], 1, 1)(x, boxes, sizes)) == 2.0
