"""Batched augmentation equals torchvision's operations on each image."""

import numpy as np
import pytest
import torch
from drawn_images import smooth_image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vitrail.data import augment, auto_augment
from vitrail.data.augment import AUGMENTS, Augment
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


def pixels(count: int = 24, size: tuple[int, int] = (20, 18)) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(smooth_image(n, size))).permute(2, 0, 1) for n in range(count)])


def draws(count: int = 24, epoch: int = 0) -> BatchRng:
    return BatchRng(11, epoch, np.arange(count))


CHANGES = {
    "flip": lambda x, d: augment.flip(x, d, 0.5),
    "pad_crop": lambda x, d: augment.pad_crop(x, d, 3, "reflect"),
    "jitter": lambda x, d: augment.jitter(x, d, 0.4),
    "erase": lambda x, d: augment.erase(x.float(), d, 0.5, "noise"),
    "rand": lambda x, d: auto_augment.rand_augment(x, d, 2, 15),
    "trivial": auto_augment.trivial_augment,
}


@pytest.mark.parametrize("name", CHANGES)
def test_augmentation_is_independent_of_the_batch(name):
    source, change = pixels(), CHANGES[name]
    kept = source.clone()
    together = change(source, draws())
    assert torch.equal(source, kept)  # the source is never written to
    for row in (0, 7, 23):
        assert torch.equal(together[row], change(source[row : row + 1], draws().take(np.array([row])))[0])
    assert together.shape == source.shape
    assert not torch.equal(together, change(source, draws(epoch=1)))


@pytest.mark.parametrize("name", CHANGES)
def test_one_channel_is_enough(name):
    assert CHANGES[name](pixels()[:, :1], draws()).shape == (24, 1, 18, 20)


def test_flip_mirrors_the_drawn_share():
    source = pixels(400, (4, 4))
    changed = augment.flip(source, draws(400), 0.3)
    mirrored = [torch.equal(a, b.flip(-1)) and not torch.equal(a, b) for a, b in zip(changed, source, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(changed, source, strict=True)]
    assert sum(mirrored) + sum(same) == 400
    assert stats.binomtest(sum(mirrored), 400, 0.3).pvalue > 0.01


@pytest.mark.parametrize(("border", "mode"), [("black", "constant"), ("reflect", "reflect")])
def test_pad_crop_is_padding_and_cropping(border, mode):
    source, padding = pixels(), 3
    tops, lefts = draws().integers("crop top", 7), draws().integers("crop left", 7)
    changed = augment.pad_crop(source, draws(), padding, border)
    for image, top, left, got in zip(source, tops, lefts, changed, strict=True):
        assert torch.equal(got, tv.crop(tv.pad(image, [padding], padding_mode=mode), top, left, 18, 20))
    assert set(tops) == set(range(7))


def test_a_mirrored_border_stops_at_the_image():
    source = pixels(size=(3, 2))
    changed = augment.pad_crop(source, draws(), 5, "reflect")  # one row is all that two rows can mirror
    for image, got in zip(source, changed, strict=True):
        assert got.shape == image.shape
        assert set(got.unique().tolist()) <= set(image.unique().tolist())


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.37])
def test_jitter_is_torchvisions(factor):
    source, factors = pixels(), torch.full((24, 1, 1, 1), factor)
    twins = {
        augment._brightness: tv.adjust_brightness,
        augment._contrast: tv.adjust_contrast,
        augment._saturation: tv.adjust_saturation,
    }
    for ours, theirs in twins.items():
        # torchvision rounds its factor to float64 first; a value on the edge of an integer may fall to either side.
        difference = ours(source, factors).int() - theirs(source, factor).int()
        assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01, ours


def test_jitter_takes_all_orders_and_stays_in_range():
    order = torch.from_numpy(draws(300).uniform("jitter order", count=3)).argsort(1)
    assert len(set(map(tuple, order.tolist()))) == 6
    assert torch.equal(augment.jitter(pixels(), draws(), 0.0), pixels())


def test_erase_clears_one_box_of_the_drawn_share():
    images = torch.ones(600, 3, 20, 20)
    erased = augment.erase(images.clone(), draws(600), 0.25, "mean")
    areas = (erased == 0).float().mean((1, 2, 3))
    assert stats.binomtest(int((areas > 0).sum()), 600, 0.25).pvalue > 0.01
    assert areas[areas > 0].min() > 0.01 and areas.max() < 0.36
    for image in erased[areas > 0][:20]:
        rows, columns = (image[0] == 0).nonzero(as_tuple=True)
        box = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == 0).all() and box.numel() == (image == 0).sum()


def test_erase_with_noise_is_normal():
    images = torch.full((300, 3, 20, 20), 99.0)
    noise = augment.erase(images, draws(300), 1.0, "noise")
    values = noise[noise != 99].numpy()
    assert len(values) > 10_000 and stats.kstest(values, "norm").pvalue > 0.01


@pytest.mark.parametrize(
    ("peer", "space"),
    [(v2.RandAugment(), auto_augment.rand_space(18, 20)), (v2.TrivialAugmentWide(), auto_augment.trivial_space())],
)
def test_every_operation_at_every_strength_is_torchvisions(peer, space):
    source = pixels(2)
    assert list(space) == list(peer._AUGMENTATION_SPACE)
    for name, (change, strengths, signed) in space.items():
        magnitudes, peer_signed = peer._AUGMENTATION_SPACE[name]
        theirs = magnitudes(auto_augment.BINS, 18, 20)
        assert signed == peer_signed
        assert strengths == ([0.0] if theirs is None else pytest.approx([float(m) for m in theirs]))
        for value in strengths[::10]:
            for sign in (1, -1) if signed else (1,):
                wanted = peer._apply_image_or_video_transform(source, name, sign * value, "nearest", {})
                got = source if change is None else change(source, sign * value)
                assert torch.equal(got, wanted), (name, sign * value)


def test_all_operations_are_drawn():
    choices = draws(3000).integers("trivial", 14)
    assert stats.chisquare(np.bincount(choices, minlength=14)).pvalue > 0.01


@pytest.mark.parametrize("name", AUGMENTS)
def test_the_ready_made_choices_differ(name):
    assert [key for key, value in AUGMENTS.items() if value == AUGMENTS[name]] == [name]


@pytest.mark.parametrize(
    "options", [{"flip": 1.5}, {"scale": (0.0, 1.0)}, {"scale": (0.9, 0.1)}, {"magnitude": 31}, {"operations": 0}]
)
def test_impossible_settings_are_reported(options):
    with pytest.raises(VitrailError, match=f"augment.{next(iter(options))}"):
        Augment(**options)
