"""Losses equal their formulas; a teacher sees the image that it was trained on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vitrail.data.loading import Batch
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.preprocess import Preprocess
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.classes.metric import ClassificationMetric
from vitrail.tasks.classify.distillation import Distilled, Supervised, Teacher
from vitrail.tasks.classify.training import ClassificationTraining

K = 5


def smoothed(labels: Tensor, amount: float) -> Tensor:
    return one_hot(labels, K) * (1 - amount) + amount / K


def test_smoothed_loss_is_the_cross_entropy_with_smoothed_targets() -> None:
    logits, labels = torch.randn(7, K), torch.randint(K, (7,))
    want = -(smoothed(labels, 0.1) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, 0.1), want)
    torch.testing.assert_close(classification_loss(logits, one_hot(labels, K).float(), 0.1), want)


@pytest.mark.parametrize("soft", [False, True])
def test_distillation_equals_the_formula(soft: bool) -> None:
    logits, imitation, wanted = torch.randn(7, K), torch.randn(7, K), torch.randn(7, K)
    labels, images, a, t = torch.randint(K, (7,)), torch.zeros(7, 3, 4, 4), 0.3, 2.0
    got = Distilled(0.1, lambda _: wanted, soft, a, t)((logits, imitation), images, labels)
    own = -(smoothed(labels, 0.1) * logits.log_softmax(1)).sum(1).mean()
    if soft:
        p, q = (wanted / t).softmax(1), (imitation / t).softmax(1)
        theirs = t**2 * (p * (p / q).log()).sum(1).mean()
    else:
        theirs = -imitation.log_softmax(1)[range(7), wanted.argmax(1)].mean()
    torch.testing.assert_close(got, (1 - a) * own + a * theirs)


def test_a_perfect_imitation_has_no_loss() -> None:
    wanted = torch.randn(7, K)
    loss = Distilled(0.0, lambda _: wanted, soft=True, alpha=1.0, temperature=3.0)
    assert loss((torch.randn(7, K), wanted), torch.zeros(7), torch.zeros(7, dtype=torch.long)).abs() < 1e-6


def test_the_distillation_token_learns_from_the_teacher_alone() -> None:
    model: Any = create_model(
        "deit_tiny_distilled_patch16_224", num_classes=K, image_size=8, patch_size=4, dim=16, depth=1, num_heads=2
    )
    images, labels = torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    batch = Batch(images, labels, torch.arange(4))

    def student(batch: Batch) -> tuple[Tensor, Tensor]:
        return ClassificationTraining.forward(None, model, batch)  # pyright: ignore[reportArgumentType]

    model.train()
    wanted = one_hot(torch.ones(4, dtype=torch.long), K).float()
    Distilled(0.0, lambda _: wanted, False, 1.0, 1.0)(student(batch), images, labels).backward()
    assert model.head.linear.weight.grad is None or model.head.linear.weight.grad.abs().sum() == 0
    assert model.head.distillation.weight.grad.abs().sum() > 0
    model.eval()
    torch.testing.assert_close(student(batch)[0], model(images))


def test_without_a_teacher_both_heads_learn_from_the_labels() -> None:
    one, two, labels = torch.randn(7, K), torch.randn(7, K), torch.randint(K, (7,))
    loss = Supervised(0.1)
    alone = loss((one, one), torch.zeros(7), labels) + loss((two, two), torch.zeros(7), labels)
    torch.testing.assert_close(loss((one, two), torch.zeros(7), labels), alone / 2)


def test_the_teacher_gets_its_own_normalisation_and_size() -> None:
    seen: list[Tensor] = []

    class Look(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(input)
            return input.mean((2, 3))

    ours = Preprocess(8, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    theirs = Preprocess(8, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    raw = torch.rand(2, 3, 8, 8)

    def prepare(protocol: Preprocess) -> Tensor:
        return (raw - torch.tensor(protocol.mean)[:, None, None]) / torch.tensor(protocol.std)[:, None, None]

    Teacher(Look(1, 1), theirs, ours)(prepare(ours))
    torch.testing.assert_close(seen[0], prepare(theirs))
    Teacher(Look(1, 1), Preprocess(16), Preprocess(8))(torch.rand(2, 3, 8, 8))
    assert seen[1].shape == (2, 3, 16, 16)


def test_a_teacher_of_other_channels_is_refused() -> None:
    with pytest.raises(VitrailError, match="channels"):
        Teacher(nn.Linear(1, 1), Preprocess(mean=(0.5,), std=(0.5,)), Preprocess())


def add(metric: ClassificationMetric, logits: Tensor, labels: Tensor) -> None:
    if len(labels):  # the loop leaves empty batches out
        metric.update((logits, logits), Batch(torch.zeros(len(labels), 3, 8, 8), labels, labels))


def test_score_equals_the_count_in_any_batches() -> None:
    logits, labels = torch.randn(23, 9), torch.randint(9, (23,))
    ranks = [(row > row[label]).sum().item() for row, label in zip(logits, labels, strict=True)]
    whole, parts = ClassificationMetric(9), ClassificationMetric(9)
    add(whole, logits, labels)
    for begin, end in ((0, 10), (10, 10), (10, 23)):
        add(parts, logits[begin:end], labels[begin:end])
    for score in (whole, parts):
        got = score.compute()
        assert got["top1"] == sum(rank == 0 for rank in ranks) / 23
        assert got["top5"] == sum(rank < 5 for rank in ranks) / 23
        assert got["loss"] == pytest.approx(-logits.log_softmax(1)[range(23), labels].mean().item(), rel=1e-6)


def test_the_baseline_is_the_share_of_the_most_frequent_class() -> None:
    metric = ClassificationMetric(4)
    for labels in ([1, 1, 0], [1, 3]):
        add(metric, torch.randn(len(labels), 4), torch.tensor(labels))
    assert metric.baseline() == {"top1": 0.6}
    metric.sync(lambda value: 2 * value)
    assert metric.counts.tolist() == [2, 6, 0, 2] and metric.baseline() == {"top1": 0.6}


def test_top5_is_left_out_where_it_is_always_one() -> None:
    for classes, told in ((4, False), (5, False), (6, True)):
        score = ClassificationMetric(classes)
        add(score, torch.randn(8, classes), torch.randint(classes, (8,)))
        assert ("top5" in score.compute()) == told
