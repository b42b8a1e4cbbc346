"""One view, applied to image, mask and boxes."""

from math import floor

import numpy as np
import pytest
from PIL import Image

from vitrail.data.stateless_rng import BatchRng
from vitrail.data.view import View, clip_boxes, draw_view, fit_view, is_mixed, whole_view


def draws(sample: int, epoch: int = 0, seed: int = 0) -> BatchRng:
    return BatchRng(seed, epoch, np.array([sample]))


def slow_mask(mask: np.ndarray, view: View, fill: int) -> np.ndarray:
    """Look each pixel up by itself."""
    (left, top, right, bottom), (wide, tall) = view.crop, view.size
    seen = np.full((tall, wide), fill, dtype=mask.dtype)
    for i in range(tall):
        for j in range(wide):
            column = wide - 1 - j if view.flip else j
            x = floor(left + (column + 0.5) * (right - left) / wide)
            y = floor(top + (i + 0.5) * (bottom - top) / tall)
            if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
                seen[i, j] = mask[y, x]
    return seen


VIEWS = [
    View((0.0, 0.0, 30.0, 20.0), (30, 20)),
    View((0.0, 0.0, 30.0, 20.0), (15, 10), flip=True),
    View((3.5, 2.25, 22.0, 17.0), (37, 29), flip=True),
    View((-4.0, 5.0, 40.0, 26.0), (22, 21)),
    View((40.0, 5.0, 50.0, 15.0), (10, 10)),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_mask_keeps_its_numbers(view):
    mask = np.random.default_rng(0).integers(0, 12, (20, 30)).astype(np.uint8)
    np.testing.assert_array_equal(view.mask(mask, 255), slow_mask(mask, view, 255))


@pytest.mark.parametrize("view", VIEWS)
def test_image_and_mask_get_the_same_view(view):
    blocks = np.kron(np.random.default_rng(1).integers(0, 200, (4, 6)), np.ones((5, 5))).astype(np.uint8)
    image = np.asarray(view.image(Image.fromarray(blocks), fill=255, resample=Image.Resampling.NEAREST))
    mask = view.mask(blocks, 255)
    assert image.shape == mask.shape and (image != mask).mean() < 0.07  # edges where the visible part is rounded


def test_a_smooth_image_follows_its_mask():
    y, x = np.mgrid[:60, :80]
    view = View((10.0, 5.0, 70.0, 50.0), (90, 60), flip=True)
    mask = ((x > 30) & (y > 20)).astype(np.uint8)
    image = np.asarray(view.image(Image.fromarray(mask * 200)))
    agree = (image > 100) == view.mask(mask, 0).astype(bool)
    assert agree.mean() > 0.985


@pytest.mark.parametrize("flip", [False, True])
def test_a_thousand_boxes_return(flip):
    random = np.random.default_rng(2)
    corners = random.uniform(0, 900, (1000, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1e-3, 300, (1000, 2))], axis=1)
    view = View((-13.7, 44.1, 777.7, 1003.0), (640, 480), flip)
    seen = view.boxes(boxes)
    assert (seen[:, 2] > seen[:, 0]).all() and (seen[:, 3] > seen[:, 1]).all()
    np.testing.assert_allclose(view.source_boxes(seen), boxes, atol=1e-6)


def test_a_box_surrounds_its_pixels():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:45] = 1
    for i in range(20):
        view = draw_view((60, 40), draws(i), (48, 32))
        ys, xs = np.nonzero(view.mask(mask, 0))
        if len(xs):
            [box] = clip_boxes(view.boxes([[30, 10, 45, 20]]), view.size)
            tight = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            assert np.abs(box - tight).max() <= 1.0


def test_views_are_drawn_from_their_sample_alone():
    one, again = (draw_view((60, 40), draws(7, 3), (32, 32)) for _ in range(2))
    assert one == again
    different = {draw_view((60, 40), draws(i, e), (32, 32)) for i in range(10) for e in range(2)}
    assert len(different) == 20
    assert draw_view((60, 40), draws(7, 3), (32, 32), attempt=1) != one
    assert 3 <= sum(draw_view((60, 40), draws(i), (32, 32)).flip for i in range(10)) <= 8


def test_windows_stay_in_the_image_or_are_padded_at_the_end():
    for i in range(30):
        view = draw_view((60, 40), draws(i), (32, 50), scale=(0.5, 2.0))
        left, top, right, bottom = view.crop
        factor = 1 / (view.scale[0] and (right - left) / 32)
        assert 0.5 <= factor <= 2.05
        assert left >= 0 and top >= 0
        assert right <= 60 + 1e-9 or left == 0
        assert bottom <= 40 + 1e-9 or top == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_extreme_images(size):
    view = draw_view(size, draws(0), (16, 16))
    image, mask = Image.new("RGB", size, "red"), np.zeros(size[::-1], np.uint8)
    assert view.image(image, fill=(0, 0, 0)).size == (16, 16) and view.mask(mask, 255).shape == (16, 16)
    assert (view.mask(mask, 255) == 0).any()


def test_whole_images():
    assert whole_view((30, 20), (30, 20)).image(image := Image.new("RGB", (30, 20))).tobytes() == image.tobytes()
    assert fit_view((480, 360), 180).size == (240, 180) and fit_view((1, 10_000), 64, longest=640).size == (1, 640)


def test_views_with_one_class_are_recognised():
    same, mixed = np.zeros((4, 4), np.uint8), np.array([[0, 1], [255, 255]], np.uint8)
    assert [is_mixed(each, 0.75, 255) for each in (same, mixed)] == [False, True]
