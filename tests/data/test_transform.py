"""Evaluation is timm's, bit for bit; a training crop is torchvision's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_images import smooth_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from vitrail.data.augment import Augment
from vitrail.data.image_io import open_image
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.transform import EvalTransform, TrainTransform, random_box
from vitrail.errors import VitrailError
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

PROTOCOLS = [
    Preprocess(size=224, crop=0.9),
    Preprocess(size=224, crop=0.875, interpolation="bilinear", mean=HALF_MEAN, std=HALF_STD),
    Preprocess(size=384, crop=1.0),
    Preprocess(size=33, crop=0.95, interpolation="nearest"),
]


def timm_transform(preprocess: Preprocess):
    data = pytest.importorskip("timm.data")
    return data.create_transform(
        (3, preprocess.size, preprocess.size),
        is_training=False,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=preprocess.crop,
    )


@pytest.mark.parametrize("preprocess", PROTOCOLS)
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 299), (224, 224), (90, 1000), (17, 13)])
def test_evaluation_is_timms_bit_for_bit(preprocess, size):
    image = smooth_image(1, size)
    assert torch.equal(EvalTransform(preprocess)(image), timm_transform(preprocess)(image))


@pytest.mark.shared
def test_evaluation_of_photographs_is_timms(shared: Path):
    preprocess = Preprocess(size=224, crop=0.9, mean=HALF_MEAN, std=HALF_STD)
    ours, theirs = EvalTransform(preprocess), timm_transform(preprocess)
    for path in sorted((shared / "data" / "imagenet17").glob("*.JPEG")):
        image = open_image(path)
        assert torch.equal(ours(image), theirs(image))


def test_a_batch_is_its_images():
    transform = EvalTransform(Preprocess(size=32))
    images = [smooth_image(n, (50, 40)) for n in range(3)]
    together = transform.batch(torch.stack([transform.to_pixels(image) for image in images]))
    assert torch.equal(together, torch.stack([transform(image) for image in images]))


def test_channels_follow_the_model():
    grey = Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert EvalTransform(grey)(smooth_image(1)).shape == (1, 16, 16)
    assert EvalTransform(Preprocess(size=16))(smooth_image(1).convert("L")).shape == (3, 16, 16)
    one = torch.randint(0, 255, (2, 1, 16, 16), dtype=torch.uint8)
    same = Preprocess(16, mean=HALF_MEAN, std=HALF_STD)
    assert torch.equal(EvalTransform(same).batch(one)[:, 2:], EvalTransform(grey).batch(one))
    assert EvalTransform(Preprocess(mean=(0.5,) * 4, std=(0.5,) * 4)).mode == "4 bands"
    with pytest.raises(VitrailError, match="bicubic"):
        EvalTransform(Preprocess(interpolation="cubic"))


@pytest.mark.parametrize("number", range(8))
def test_a_random_crop_is_torchvisions_of_the_same_box(number):
    image, draws = smooth_image(number, (120, 90)), BatchRng(0, 0, np.array([number]))
    left, top, right, bottom = random_box(image.size, draws, (0.08, 1.0), (3 / 4, 4 / 3))
    got = TrainTransform(Preprocess(size=48), Augment()).to_pixels(image, draws)
    wanted = tv.resized_crop(
        image, top, left, bottom - top, right - left, [48, 48], interpolation=InterpolationMode.BICUBIC
    )
    assert np.array_equal(got.permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize("size", [(120, 90), (30, 300), (300, 30), (1, 1), (5, 4)])
def test_boxes_have_torchvisions_distribution(size):
    image = torch.empty(3, size[1], size[0])
    peer = RandomResizedCrop(8)
    theirs = [peer.make_params([image]) for _ in range(400)]
    ours = [random_box(size, BatchRng(0, 0, np.array([n])), (0.08, 1.0), (3 / 4, 4 / 3)) for n in range(400)]
    assert all(0 <= l < r <= size[0] and 0 <= t < b <= size[1] for l, t, r, b in ours)
    area = np.mean([(r - l) * (b - t) for l, t, r, b in ours])
    assert area == pytest.approx(np.mean([p["height"] * p["width"] for p in theirs]), rel=0.1)
    assert np.mean([l for l, *_ in ours]) == pytest.approx(np.mean([p["left"] for p in theirs]), rel=0.2, abs=0.3)


def test_no_augmentation_is_evaluation():
    preprocess = Preprocess(size=32, crop=0.9)
    image, still = smooth_image(2, (60, 50)), EvalTransform(preprocess)
    transform = TrainTransform(preprocess, Augment(crop="center", flip=0.0))
    draws = BatchRng(0, 0, np.array([0]))
    assert torch.equal(transform.batch(transform.to_pixels(image)[None], draws)[0], still(image))


def test_only_images_that_fit_are_left_as_they_are():
    assert EvalTransform(Preprocess(size=32, crop=1.0)).leaves(3, 32, 32)
    assert EvalTransform(Preprocess(size=32, crop=1.0)).leaves(1, 32, 32)
    assert not EvalTransform(Preprocess(size=32, crop=0.9)).leaves(3, 32, 32)
    assert not EvalTransform(Preprocess(size=32, crop=1.0)).leaves(3, 32, 30)
    assert not EvalTransform(Preprocess(32, 1.0, mean=(0.5,), std=(0.5,))).leaves(3, 32, 32)
    assert TrainTransform(Preprocess(size=32, crop=0.9), Augment(crop="pad")).leaves(3, 32, 32)
    assert not TrainTransform(Preprocess(size=32, crop=1.0), Augment()).leaves(3, 32, 32)


def test_large_jpegs_are_decoded_as_far_as_the_least_crop_needs():
    assert TrainTransform(Preprocess(size=224), Augment(scale=(0.25, 1.0))).draft == 448
    assert EvalTransform(Preprocess(size=224)).draft is None


def test_every_change_reaches_the_images():
    pixels = torch.from_numpy(np.stack([np.asarray(smooth_image(n, (32, 32))) for n in range(32)])).permute(0, 3, 1, 2)
    draws, still = BatchRng(0, 0, np.arange(32)), Augment(crop="center", flip=0.0)
    plain = TrainTransform(Preprocess(32, 1.0), still).batch(pixels, draws)
    changes = [
        {"flip": 0.5},
        {"policy": "rand"},
        {"policy": "trivial"},
        {"jitter": 0.4},
        {"erase": 0.5},
        {"crop": "pad"},
    ]
    results = [TrainTransform(Preprocess(32, 1.0), Augment(**{"crop": "center", "flip": 0.0, **c})) for c in changes]
    images = [transform.batch(pixels, draws) for transform in results]
    assert len({image.numpy().tobytes() for image in [plain, *images]}) == len(changes) + 1
