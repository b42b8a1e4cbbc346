"""Figures against scikit-learn and against loops that a reader can check."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from vitrail.tasks.classes.calibration import calibrate
from vitrail.tasks.classes.scores import Scores, class_figures, count_confusions, macro_f1, score, top

N, K = 300, 7


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(N, K) * 2


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(0, K - 1, (N,))  # the last class never occurs


def test_likelihood_brier_and_top_k_are_scikit_learns(logits: torch.Tensor, labels: torch.Tensor) -> None:
    scores, p = score(logits, labels), logits.double().softmax(1).numpy()
    classes = np.arange(K)
    assert scores.loss.mean() == pytest.approx(log_loss(labels, p, labels=classes), rel=1e-12)
    assert scores.brier.mean() == pytest.approx(brier_score_loss(labels, p, labels=classes, scale_by_half=False))
    for k in (1, 2, 5):
        assert top(scores, k).value == pytest.approx(top_k_accuracy_score(labels, p, k=k, labels=classes))


def test_class_figures_are_scikit_learns(logits: torch.Tensor, labels: torch.Tensor) -> None:
    scores = score(logits, labels)
    figures = class_figures(count_confusions(scores, K), [str(i) for i in range(K)])
    expected = precision_recall_fscore_support(
        scores.label, scores.predicted, labels=np.arange(K), zero_division=np.nan
    )
    ours = [[each.precision.value, each.recall.value, each.f1.value, each.support] for each in figures]
    theirs = np.stack(expected, axis=1)
    assert figures[-1].recall.value is None and np.isnan(theirs[-1, 1])  # a share of nothing
    np.testing.assert_allclose(np.array(ours[:-1], dtype=float), theirs[:-1])
    assert macro_f1(figures) == pytest.approx(theirs[:-1, 2].mean())


def test_ties_go_to_the_lower_class_everywhere() -> None:
    scores = score(torch.zeros(4, 4), torch.arange(4))
    assert scores.predicted.tolist() == [0, 0, 0, 0]
    assert scores.rank.tolist() == [0, 1, 2, 3]
    assert ((scores.rank == 0) == scores.right).all()


def test_batch_boundaries_do_not_change_metrics(logits: torch.Tensor, labels: torch.Tensor) -> None:
    whole = score(logits, labels)
    parts = Scores.concatenate([score(logits[i : i + 13], labels[i : i + 13]) for i in range(0, N, 13)])
    for name in Scores.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_logits_that_overflow_give_finite_figures() -> None:
    scores = score(torch.tensor([[1e30, -1e30]]), torch.tensor([1]))
    assert np.isfinite(scores.loss).all() and scores.brier.tolist() == [2.0]


def test_calibration_error_is_the_sum_over_bins(logits: torch.Tensor, labels: torch.Tensor) -> None:
    scores = score(logits, labels)
    found, expected = calibrate(scores, bins=10), 0.0
    for b in range(10):
        inside = [i for i in range(N) if b / 10 < scores.confidence[i] <= (b + 1) / 10]
        if inside:
            sure = sum(scores.confidence[i] for i in inside) / len(inside)
            right = sum(scores.predicted[i] == scores.label[i] for i in inside) / len(inside)
            expected += len(inside) / N * abs(sure - right)
        assert found.bins[b].count == len(inside)
    assert found.ece == pytest.approx(expected, rel=1e-12)


def test_a_calibrated_model_has_no_calibration_error() -> None:
    # Logits of p = 0.8 for class 0, right in 80 of 100.
    logits = torch.tensor([[0.8, 0.2]]).log().repeat(100, 1)
    labels = torch.tensor([0] * 80 + [1] * 20)
    assert calibrate(score(logits, labels)).ece == pytest.approx(0.0, abs=1e-6)
    assert calibrate(score(logits, 1 - labels)).ece == pytest.approx(0.6, abs=1e-6)


def test_full_confidence_falls_in_the_last_bin() -> None:
    found = calibrate(score(torch.tensor([[1e4, 0.0]]), torch.tensor([0])))
    assert [each.count for each in found.bins] == [0] * 14 + [1]
