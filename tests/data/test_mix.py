"""Mixup and CutMix: labels follow pixels, and nothing but seed and step decides."""

import pytest
import torch
from torch import Tensor

from vitrail.data.mixup import Mix
from vitrail.errors import VitrailError


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Image i is filled with i, and is of class i: a mixed pixel shows its sources."""
    return torch.arange(size).float()[:, None, None, None].expand(size, 3, 16, 12).clone(), torch.arange(size)


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
@pytest.mark.parametrize("step", range(8))
def test_the_label_is_the_mean_of_the_pixels(options, step):
    images, labels = batch(7)
    mixed, targets = Mix(7, **options)(images, labels, seed=1, step=step)
    assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(7.0), atol=1e-4)
    assert torch.allclose(targets.sum(1), torch.ones(7))
    assert targets[6, 6] == 1  # the last of an odd batch has no partner


def test_cutmix_pixels_come_from_one_of_two_images():
    images, labels = batch(4)
    mixed, _ = Mix(4, cutmix=1.0)(images, labels, seed=0, step=0)
    assert set(mixed[0].unique().tolist()) == {0.0, 1.0}
    assert set(mixed[3].unique().tolist()) == {2.0, 3.0}


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_cutting_the_batch_does_not_change_the_images(pieces):
    images, labels = batch(12)
    mix = Mix(12, mixup=0.8, cutmix=1.0)
    whole = mix(images, labels, 5, 3)
    parts = [mix(i, y, 5, 3) for i, y in zip(images.chunk(pieces), labels.chunk(pieces), strict=True)]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
    assert torch.equal(whole[1], torch.cat([part[1] for part in parts]))


def test_seed_and_step_decide_and_the_global_generator_is_left_alone():
    images, labels = batch(4)
    mix = Mix(4, mixup=1.0)
    state = torch.get_rng_state()
    first, again = mix(images, labels, 1, 2), mix(images, labels, 1, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], mix(images, labels, 1, 3)[1])
    assert not torch.equal(first[1], mix(images, labels, 2, 2)[1])
    assert torch.equal(images, batch(4)[0])


def test_lam_has_the_distribution_of_the_paper():
    images, labels = batch(2)
    lams = torch.tensor([Mix(2, mixup=0.8)(images, labels, 0, step)[1][0, 0].item() for step in range(2000)])
    assert abs(lams.mean() - 0.5) < 0.02
    assert abs(lams.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.01  # variance of Beta(a, a)


def test_off_is_one_hot():
    images, labels = batch(3)
    for mix in (Mix(3), Mix(3, mixup=1.0, prob=0.0)):
        same, targets = mix(images, labels, 0, 0)
        assert not mix and torch.equal(same, images) and torch.equal(targets, torch.eye(3))
    assert Mix(3, mixup=0.2)


def test_impossible_settings_are_reported():
    with pytest.raises(VitrailError, match="mixup=-1"):
        Mix(3, mixup=-1)
    with pytest.raises(VitrailError, match="prob=2"):
        Mix(3, prob=2)
