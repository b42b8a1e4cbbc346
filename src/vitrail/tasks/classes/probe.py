"""Linear probe and k-NN: how well classes can be read off the features of a frozen model."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn.functional import normalize

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.prefetch import prefetch_map
from vitrail.data.table import Columns
from vitrail.errors import DataError
from vitrail.tasks.classes.feature_cache import cached_features, features_digest
from vitrail.tasks.confidence_interval import Rate, paired_difference, wilson
from vitrail.tasks.features import ImageFeatures, TextFeatures
from vitrail.tasks.formatting import percent
from vitrail.tasks.skipped import skipped_fields
from vitrail.tasks.table import Table

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Values of C, the inverse strength of the penalty, that cross-validation chooses from."""
TEMPERATURE = 0.07
_MOST = 10_000
"""Samples that cross-validation uses at most; the final fit uses all."""


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of classifiers on frozen features.

    Args:
        model: name of the model.
        data: evaluated split.
        samples: size of the split.
        dim: numbers in a vector.
        strength: the C that cross-validation chose.
        linear: for each sample, whether the linear probe is right.
        nearest: for each sample, whether k-NN is right.
        skipped: samples of all splits that could not be read.
        skipped_names: the first of them.
    """

    model: str
    data: str
    samples: int
    dim: int
    strength: float
    linear: tuple[bool, ...]
    nearest: tuple[bool, ...]
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        figures = {
            name: wilson(sum(hits), self.samples) for name, hits in (("linear", self.linear), ("knn", self.nearest))
        }
        named = {name: {"value": rate.value, "low": rate.low, "high": rate.high} for name, rate in figures.items()}
        return {
            "model": self.model,
            "data": self.data,
            "samples": self.samples,
            "dim": self.dim,
            "C": self.strength,
            **named,
            "skipped": self.skipped,
            "skipped_names": list(self.skipped_names),
        }


def probe(
    reader: ImageFeatures | TextFeatures,
    spec: str,
    k: int = 20,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
    bad: Literal["fail", "skip"] = "fail",
    columns: Columns | None = None,
) -> ProbeResult:
    """Fit a linear probe and k-NN on the training samples, and measure them on test, or else on val.

    With a test split the probe is fitted on train and val together. Features are computed once for each pair of
    weights and data, and cached.

    Args:
        reader: features of the model, see `tasks.features.feature_reader`.
        spec: name, file or folder of a data set with classes.
        k: neighbours of k-NN.
        batch: samples in a batch.
        progress: receives the numbers of samples done and of all samples of a split.
        bad: policy for unreadable samples: `fail` raises, `skip` leaves them out, for which every image is read first.
        columns: names of the columns of a table of images.

    Raises:
        DataError: the data has only one split, or a sample cannot be read (with `bad="skip"`: none of a split can).
    """
    opened = reader.open(spec, bad, columns)
    skipped, splits = [problem.id for problem in opened.skipped], dict[str, Any](opened)
    if bad == "skip":
        splits = {name: _readable(reader, part, skipped) for name, part in splits.items()}
    held = splits.pop("test", None) or splits.pop("val", None)
    if held is None or not splits:
        raise DataError(f"{spec} has nothing to fit on and to measure on; it needs train, and test or val.")
    digest = features_digest(reader)
    inputs = {name: cached_features(reader, digest, part, batch, progress) for name, part in splits.items()}
    x, y = torch.cat(list(inputs.values())), torch.cat([part.labels for part in splits.values()])
    test = cached_features(reader, digest, held, batch, progress)
    strength = choose_strength(x.numpy(), y.numpy())
    linear = linear_probe(x.numpy(), y.numpy(), strength)(test.numpy()) == held.labels.numpy()
    nearest = knn(x, y, test, k) == held.labels
    name = getattr(reader.model, "variant", "") or type(reader.model).__name__
    hits = tuple(linear.tolist()), tuple(nearest.tolist())
    return ProbeResult(name, held.name, len(held), x.shape[1], strength, *hits, **skipped_fields(skipped))


def _readable(reader: ImageFeatures | TextFeatures, data: Any, skipped: list[str]) -> Any:
    """Return the samples of a split that can be read; names of the others are added to `skipped`."""

    def is_readable(number: int) -> bool:
        try:
            reader.sample(data, number)
        except ImageDecodeError:
            return False
        return True

    good = np.array(list(prefetch_map(is_readable, range(len(data)), window=32)), dtype=bool)
    if not good.any():
        raise DataError(f"Not one sample of {data.name} can be read. See why: vitrail data check FOLDER")
    skipped += [data.ids[number] for number in np.flatnonzero(~good)]
    return data if good.all() else data.take(np.flatnonzero(good))


def linear_probe(x: np.ndarray, y: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """Fit multinomial logistic regression on standardised features, and return the function from features to classes.

    Args:
        x: features `(n, C)`.
        y: class numbers `(n,)`.
        strength: C, the inverse weight of the squared norm of the coefficients.

    Example:
        >>> linear_probe(np.array([[0.0], [1.0], [9.0], [8.0]]), np.array([0, 0, 1, 1]), 1.0)(np.array([[2.0], [7.0]]))
        array([0, 1])
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy no longer moves in the last iterations
        model.fit((x - mean) / scale, y)
    return lambda values: np.asarray(model.predict((values - mean) / scale))


def choose_strength(x: np.ndarray, y: np.ndarray, folds: int = 5) -> float:
    """Return the C with the best accuracy in stratified cross-validation; the smallest one if several are best.

    Classes of one sample allow no folds; then C is 1.
    """
    folds = min(folds, min(Counter(y.tolist()).values()))
    if folds < 2:
        return 1.0
    if len(x) > _MOST:
        chosen = np.random.default_rng(0).permutation(len(x))[:_MOST]
        return choose_strength(x[chosen], y[chosen], folds)
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y))

    def hits(strength: float) -> int:
        return sum(int((linear_probe(x[fit], y[fit], strength)(x[held]) == y[held]).sum()) for fit, held in parts)

    return max(STRENGTHS, key=lambda strength: (hits(strength), -strength))


def knn(x: Tensor, y: Tensor, queries: Tensor, k: int = 20) -> Tensor:
    """Return the class of each query by its k nearest samples, weighted by exp(cosine / 0.07).

    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4; the protocol of DINO.

    Example:
        >>> knn(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([3, 5]), torch.tensor([[0.9, 0.1]]), k=1)
        tensor([3])
    """
    samples, classes, found = normalize(x), int(y.max()) + 1, []
    for part in normalize(queries).split(1024):
        cosine, index = (part @ samples.T).topk(min(k, len(x)))
        votes = torch.zeros(len(part), classes, dtype=torch.float64)
        votes.scatter_add_(1, y[index], (cosine.double() / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def probe_table(results: list[ProbeResult]) -> Table:
    """Return a model per row, with 95 % intervals and the difference of its linear probe from that of the first."""
    rows = [
        [
            one.model,
            str(one.dim),
            *_figures(one.linear),
            f"{one.strength:g}",
            *_figures(one.nearest),
            *([_difference(one, results[0])] if len(results) > 1 else []),
        ]
        for one in results
    ]
    columns = [
        "model",
        "dim",
        "linear",
        "95% interval",
        "C",
        "k-NN",
        "95% interval of k-NN",
        *(["to the first"] if len(results) > 1 else []),
    ]
    return Table("", columns, rows, right=columns[1:])


def _figures(hits: tuple[bool, ...]) -> list[str]:
    rate = wilson(sum(hits), len(hits))
    return [percent(rate.value), f"{percent(rate.low)} to {percent(rate.high)}"]


def _difference(one: ProbeResult, first: ProbeResult) -> str:
    if one is first or one.data != first.data:
        return "–"
    rate: Rate = paired_difference(one.linear, first.linear)
    return f"{100 * (rate.value or 0):+.1f} ({100 * rate.low:+.1f} to {100 * rate.high:+.1f})"
