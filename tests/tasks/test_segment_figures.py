"""Losses, metrics and windows of segmentation against plain loops."""

from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor

from vitrail.data.label_map import IGNORE
from vitrail.data.stateless_rng import BatchRng
from vitrail.tasks.segment.batch import SegmentBatch, grouped
from vitrail.tasks.segment.evaluate import bootstrap
from vitrail.tasks.segment.loading import RandomCrops
from vitrail.tasks.segment.loss import SegmentLoss, balanced_weights, dice_losses
from vitrail.tasks.segment.metric import SegmentMetric, confusion_matrix, pixel_scores
from vitrail.tasks.segment.scores import ImageScorer, slide, window_starts


def case(seed: int = 0, batch: int = 3, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, 5, 6, generator=generator)
    return logits, torch.randint(IGNORE, classes, (batch, 5, 6), generator=generator)


def slow_loss(logits: Tensor, classes: Tensor, weights: list[float], dice: float) -> float:
    """Walk over the pixels."""
    total = 0.0
    for image, mask in zip(logits.tolist(), classes.tolist(), strict=True):
        count, chance, truth, both = 0, [0.0] * len(weights), [0.0] * len(weights), [0.0] * len(weights)
        for i, row in enumerate(mask):
            for j, c in enumerate(row):
                if c == IGNORE:
                    continue
                scores = [exp(image[k][i][j]) for k in range(len(weights))]
                p = [score / sum(scores) for score in scores]
                total -= weights[c] * log(p[c])
                count += 1
                truth[c] += 1
                both[c] += p[c]
                chance = [a + b for a, b in zip(chance, p, strict=True)]
        present = [c for c in range(len(weights)) if truth[c]]
        mean = sum(2 * both[c] / (chance[c] + truth[c]) for c in present) / max(len(present), 1)
        total += dice * count * (1 - mean)
    return total


@pytest.mark.parametrize("dice", [0.0, 0.7])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]])
def test_the_loss_is_a_sum_over_labelled_pixels(weights, dice):
    logits, classes = case()
    loss = SegmentLoss(None if weights is None else torch.tensor(weights), dice)
    assert loss.of(logits, classes).item() == pytest.approx(slow_loss(logits, classes, weights or [1.0] * 4, dice))
    parts = sum(loss.of(logits[i : i + 1], classes[i : i + 1]).item() for i in range(3))
    assert parts == pytest.approx(loss.of(logits, classes).item())


def test_an_image_without_labels_adds_nothing():
    logits, classes = case(batch=1)
    void = torch.full_like(classes, IGNORE)
    logits.requires_grad_()
    loss = SegmentLoss(dice=1.0).of(logits, void)
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))
    assert dice_losses(logits.detach(), void).item() == 1


def test_balanced_weights_keep_the_size_of_the_loss():
    counts = torch.tensor([900.0, 90.0, 10.0])
    weights = balanced_weights(counts)
    assert weights[0] < weights[1] < weights[2]
    assert (weights * counts / counts.sum()).sum().item() == pytest.approx(1)


def test_scores_are_pooled_and_absent_classes_have_none():
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 3, (2, 400)), random.integers(0, 3, (2, 400))
    truth[0, :50] = IGNORE
    confusion = sum(confusion_matrix(torch.tensor(f), torch.tensor(t), 4) for t, f in zip(truth, found, strict=True))
    scores = pixel_scores(confusion.numpy())
    counted = truth != IGNORE
    for c in range(3):
        both = ((truth == c) & (found == c) & counted).sum()
        either = (((truth == c) | (found == c)) & counted).sum()
        assert scores.iou[c] == pytest.approx(both / either)
        assert scores.recall[c] == pytest.approx(both / (truth == c).sum())
    assert np.isnan(scores.iou[3]) and scores.miou == pytest.approx(scores.iou[:3].mean())
    assert scores.accuracy == pytest.approx(((truth == found) & counted).sum() / counted.sum())
    assert np.isnan(pixel_scores(np.zeros((2, 2))).miou)


def test_the_metric_adds_up_batches_of_any_size():
    (a, ca), (b, cb) = case(1), case(2, batch=1)
    metric = SegmentMetric(4, SegmentLoss())
    for logits, classes in ((a, ca), (b, cb)):
        metric.update([(logits, None)], SegmentBatch((logits,), (classes,), torch.arange(len(logits))))
    together = SegmentMetric(4, SegmentLoss())
    together.update([(a, None), (b, None)], SegmentBatch((a, b), (ca, cb), torch.arange(4)))
    assert metric.compute() == pytest.approx(together.compute())
    pixels = (ca != IGNORE).sum() + (cb != IGNORE).sum()
    want = (SegmentLoss().of(a, ca) + SegmentLoss().of(b, cb)) / pixels
    assert metric.compute()["loss"] == pytest.approx(want.item())


def test_batches_are_cut_into_whole_images():
    samples = [((torch.full((3, 4, 4 + i % 2), float(i)), torch.zeros(4, 4 + i % 2).long()), i) for i in range(5)]
    samples[0][0][1][:2] = IGNORE
    batch = grouped(samples)
    assert [len(group) for group in batch.images] == [3, 2] and batch.index.tolist() == [0, 2, 4, 1, 3]
    assert batch.weight == 4.5 and batch.pixels == 80 - 4 + 2 * 4 - 4
    parts = batch.split(2)
    assert sum(share for share, _ in parts) == pytest.approx(1)
    assert torch.cat([part.index for _, part in parts]).tolist() == batch.index.tolist()
    assert batch.placeholder().weight == 0 and SegmentBatch((), (), torch.zeros(0).long()).placeholder().weight == 0


@pytest.mark.parametrize(("side", "window"), [(10, 4), (11, 4), (4, 4), (3, 4), (100, 32)])
def test_windows_cover_an_axis(side, window):
    starts = window_starts(side, window, 0.33)
    assert starts[0] == 0 and starts[-1] == max(side - window, 0)
    assert all(0 < b - a <= max(int(window * 0.67), 1) for a, b in pairwise(starts))


@pytest.mark.parametrize("size", [(9, 7), (3, 20), (1, 1)])
def test_windows_of_a_pointwise_model_are_the_whole(size):
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(slide(lambda x: x[:, :2] * 3, images, 5, 0.4), images[:, :2] * 3)


def test_the_mean_over_windows_is_a_plain_mean():
    images = torch.randn(1, 1, 1, 6)

    def answer(x: Tensor) -> Tensor:
        return x.mean(3, keepdim=True).expand_as(x)

    starts = window_starts(6, 4, 0.5)
    assert starts == [0, 2]
    a, b = images[..., :4].mean(), images[..., 2:].mean()
    want = torch.stack([a, a, (a + b) / 2, (a + b) / 2, b, b])
    padded = torch.nn.functional.pad(images, (0, 0, 0, 3))
    torch.testing.assert_close(slide(lambda x: answer(x[:, :, :1]).expand_as(x), padded, 4, 0.5)[0, 0, 0], want)


def test_the_mirror_image_makes_scores_symmetric():
    images, noise = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 4, 6)
    scores = ImageScorer(lambda x: x + noise, flip=True)
    torch.testing.assert_close(scores(images.flip(-1)).flip(-1), scores(images))
    assert scores(images, (8, 12)).shape == (1, 2, 8, 12)


def test_crops_depend_on_their_sample_alone_and_avoid_a_single_class():
    from segment_data import draw

    image, mask = draw(3)
    classes = np.where(mask == 3, IGNORE, mask.astype(np.int16)).astype(np.int16)
    crops = RandomCrops(16, strength=0.4, most=0.9)
    rngs = [BatchRng(0, 1, np.array([i])) for i in (5, 5, 6)]
    (a, ma), (b, mb), (c, _) = (crops(image, classes, rng) for rng in rngs)
    assert torch.equal(a, b) and torch.equal(ma, mb) and not torch.equal(a, c)
    assert a.shape == (3, 16, 16) and ma.shape == (16, 16) and ma.dtype == torch.int16
    kinds = [len(np.unique(crops(image, classes, BatchRng(0, 0, np.array([i])))[1])) for i in range(20)]
    single = [
        len(np.unique(RandomCrops(16, most=1.0)(image, classes, BatchRng(0, 0, np.array([i])))[1])) for i in range(20)
    ]
    assert sum(kind > 1 for kind in kinds) >= sum(kind > 1 for kind in single)


def test_the_interval_holds_the_figure():
    random = np.random.default_rng(0)
    each = [np.diag(random.integers(50, 100, 3)) + random.integers(0, 20, (3, 3)) for _ in range(40)]
    low, high = bootstrap(each)
    assert low < pixel_scores(sum(each)).miou < high and bootstrap(each[:5]) is None
