"""Evaluation of a classifier of point clouds: one pass over a split."""

from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch

from vitrail.data.points.point_set import PointCloudSet
from vitrail.data.sampler import ResumableSampler
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.evaluation import ClassEvaluation
from vitrail.tasks.classes.measures import measure
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.classes.scores import Scores, score
from vitrail.tasks.classes.sections import render_section
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.points.batches import PointLoader
from vitrail.tasks.points.drawing import COLORS
from vitrail.tasks.points.options import EvaluateOptions
from vitrail.tasks.points.predictor import need_point_model, picked
from vitrail.tasks.points.sampling import sampled, still
from vitrail.tasks.results import Progress, ReportSection
from vitrail.tasks.skipped import skipped_fields

_SHOWN = 768
"""Most points of a cloud in the report; all picks are among them."""
_RIGHT = 6
_SCRIPT = Path(__file__).parent / "templates" / "clouds.js"


@dataclass(frozen=True)
class EvaluatedCloud:
    """A cloud of the split, kept for the report.

    Args:
        id: its name in the data set.
        label: the true class.
        predicted: the predicted class.
        confidence: probability of the predicted class.
        loss: negative log-likelihood of the true class, in nats.
        points: coordinates in thousandths of the radius, x, y, z of each point in turn.
        picks: indices of the points that each SortNet picked.
    """

    id: str
    label: str
    predicted: str
    confidence: float
    loss: float
    points: tuple[int, ...]
    picks: tuple[tuple[int, ...], ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EvaluatedCloud":
        """Build from the dict of `dataclasses.asdict`, also after a JSON round trip."""
        picks = tuple(tuple(int(number) for number in net) for net in values["picks"])
        return cls(**{**values, "points": tuple(int(value) for value in values["points"]), "picks": picks})


@dataclass(frozen=True, kw_only=True)
class PointEvaluation(ClassEvaluation):
    """Evaluation of a classifier of clouds on one split.

    Args:
        errors: wrong predictions with the highest loss, worst first.
        examples: correct predictions, one per class.
        points: number of points that the model read of each cloud.
        mean_class: mean of the classes' recalls (mAcc), beside the overall accuracy (OA).
    """

    task: ClassVar[str] = "points"
    nouns: ClassVar[str] = "clouds"
    unit: ClassVar[str] = "clouds"

    errors: tuple[EvaluatedCloud, ...]
    examples: tuple[EvaluatedCloud, ...]
    points: int
    mean_class: float

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name."""
        return super().metrics() | {"mean_class": self.mean_class}

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: confusion, classes, calibration, clouds that can be turned."""
        values = {"errors": self.errors, "examples": self.examples, "colors": COLORS}
        clouds = render_section(__package__ or "", "Clouds", "clouds.html", values)
        return [*super().sections(), clouds._replace(script=_SCRIPT.read_text(encoding="utf-8"))]

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        return super().facts() | {"points": f"{self.points:,} of each cloud, without votes"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PointEvaluation":
        """Build from the dict of `to_dict`."""
        values = cls.fields_from(values)
        values |= {key: tuple(map(EvaluatedCloud.from_dict, values[key])) for key in ("errors", "examples")}
        return cls(**values)


def evaluate_points(
    model: Model, clouds: PointCloudSet, options: EvaluateOptions, progress: Progress | None = None
) -> PointEvaluation:
    """Evaluate a classifier on a split; each cloud is sampled once, without votes.

    Raises:
        VitrailError: the classes of model and data do not match.
        DataError: a cloud cannot be read, or a logit is not finite.
    """
    model, started = need_point_model(model), perf_counter()
    names = class_names(model, model.config.num_classes, options.labels)  # pyright: ignore[reportArgumentType]
    labels = _labels(clouds, names)
    order = ResumableSampler(len(clouds), options.batch, shuffle=False, drop_last=False)
    parts, done = [], 0
    with inference_mode_for(model) as device:
        for batch in PointLoader(clouds, order, model.sampling, fixed=True).epoch():
            logits = model(batch.points.to(device))
            check_finite(logits, [clouds.ids[i] for i in batch.index.tolist()])
            parts.append(score(logits, labels[batch.index]))
            done += len(batch.index)
            if progress is not None:
                progress(done, len(clouds))
    seconds, scores = perf_counter() - started, Scores.concatenate(parts)
    found = measure(scores, names)
    return PointEvaluation(
        **found,
        model=model.variant,
        parameters=sum(value.numel() for value in model.parameters()),
        data=clouds.name,
        seconds=seconds,
        batch=options.batch,
        device=str(device),
        precision="fp32",
        errors=_kept(model, clouds, scores, names, _worst(scores, options.worst)),
        examples=_kept(model, clouds, scores, names, _first_of_each(scores)),
        points=model.sampling.points,
        **skipped_fields(clouds.skipped),
        mean_class=float(np.mean([each.recall.value or 0.0 for each in found["classes"] if each.support])),
    )


def _worst(scores: Scores, count: int) -> list[int]:
    wrong = np.flatnonzero(~scores.right).tolist()
    return nlargest(count, wrong, key=lambda number: scores.loss[number])


def _first_of_each(scores: Scores) -> list[int]:
    """Return the first right prediction of some classes, spread evenly."""
    firsts = [
        int(np.flatnonzero(scores.right & (scores.label == label))[0])
        for label in np.unique(scores.label[scores.right])
    ]
    return firsts[:: max(1, len(firsts) // _RIGHT)][:_RIGHT]


def _kept(
    model: Model, clouds: PointCloudSet, scores: Scores, names: tuple[str, ...], chosen: list[int]
) -> tuple[EvaluatedCloud, ...]:
    """Return some clouds for the report, with the picks of SortNets."""
    found = []
    with inference_mode_for(model) as device:
        for number in chosen:
            points = sampled(clouds.cloud(number), model.sampling, still(number))[None].to(device)
            (ordered,), (picks,) = picked(model, points)
            shown, picks = _thinned(ordered.cpu(), picks)
            found.append(
                EvaluatedCloud(
                    clouds.ids[number],
                    names[int(scores.label[number])],
                    names[int(scores.predicted[number])],
                    float(scores.confidence[number]),
                    float(scores.loss[number]),
                    tuple((1000 * shown).round().int().flatten().tolist()),
                    picks,
                )
            )
    return tuple(found)


def _thinned(
    points: torch.Tensor, picks: tuple[tuple[int, ...], ...]
) -> tuple[torch.Tensor, tuple[tuple[int, ...], ...]]:
    """Return at most `_SHOWN` points and the picks, all of which are kept."""
    needed = sorted({number for net in picks for number in net})
    rest = sorted(set(range(len(points))) - set(needed))
    step = max(1, -(-len(rest) // max(1, _SHOWN - len(needed))))
    kept = [*needed, *rest[::step]]
    places = {number: place for place, number in enumerate(kept)}
    return points[kept], tuple(tuple(places[number] for number in net) for net in picks)


def _labels(clouds: PointCloudSet, names: tuple[str, ...]) -> torch.Tensor:
    """Return the model's class number of each cloud, by name."""
    places = {name: number for number, name in enumerate(names)}
    missing = [name for name, count in clouds.counts().items() if count and name not in places]
    if missing:
        raise VitrailError(
            f"{clouds.name} has the class {missing[0]}; the model knows {', '.join(names[:5])}.\n"
            "Evaluate on data with the model's classes, or name them in order (--labels FILE)."
        )
    return torch.tensor([places.get(name, -1) for name in clouds.classes])[clouds.labels]
