"""Evaluation of a multi-label classifier: one pass over a split."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.label_sets import LabelSet
from vitrail.data.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError
from vitrail.native.image_resize import best_pixels
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.formatting import percent
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.multilabel.options import EvaluateOptions
from vitrail.tasks.multilabel.predictor import read_thresholds
from vitrail.tasks.multilabel.scores import LabelFigures, figures, mean_ap, micro_f1
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.skipped import skipped_fact, skipped_fields, skipped_sentence
from vitrail.tasks.table import Table


@dataclass(frozen=True)
class LabelEvaluation:
    """Figures of a multi-label classifier on a split.

    Args:
        model: name of the variant.
        data: the split.
        parameters: number of weights.
        samples: images.
        map: mean average precision over the labels that occur.
        f1: F1 over all labels of all images, at the thresholds.
        exact: share of the images whose labels are all right.
        loss: mean binary cross-entropy.
        figures: figures of each label.
        seconds: time of the evaluation.
        device: device of the model.
        skipped: images that could not be read.
        skipped_names: the first of them.
    """

    model: str
    data: str
    parameters: int
    samples: int
    map: float
    f1: float
    exact: float
    loss: float
    figures: tuple[LabelFigures, ...]
    seconds: float
    device: str
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return loss, mean average precision and F1."""
        return {"loss": self.loss, "map": self.map, "f1": self.f1}

    def summary(self) -> str:
        """Return a sentence."""
        return (
            f"{self.model} on {self.data} ({self.samples:,} images): mean average precision {percent(self.map)}, "
            f"F1 {percent(self.f1)}, all labels right {percent(self.exact)}."
            f"{skipped_sentence(self.skipped, self.skipped_names)}"
        )

    def tables(self, rows: int) -> list[Table]:
        """Return a label per row, the least average precision first."""
        columns = ["label", "images", "AP", "threshold", "precision", "recall", "best F1", "at"]
        order = sorted(self.figures, key=lambda one: (one.ap is None, one.ap or 0.0))
        cells = [
            [
                *(one.name, str(one.count), percent(one.ap), f"{one.threshold:.3f}", percent(one.precision)),
                *(percent(one.recall), percent(one.best_f1), f"{one.best_threshold:.3f}"),
            ]
            for one in order[:rows]
        ]
        note = "best F1 and its threshold are those of this split: choose thresholds on val, measure on test"
        return [Table("Labels", columns, cells, right=columns[1:], notes=[note])]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        return [
            MetricCard("Mean AP", percent(self.map), f"{sum(one.ap is not None for one in self.figures)} labels"),
            MetricCard("F1", percent(self.f1), "all labels of all images"),
            MetricCard("All labels right", percent(self.exact), f"{self.samples:,} images"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return the table of labels."""
        [table] = self.tables(len(self.figures))
        head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in table.columns)
        body = Markup("").join(
            Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
            for row in table.rows
        )
        html = Markup(
            '<div class="scroll" tabindex="0"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        )
        return [ReportSection("Labels", html.format(head, body))]

    def images_to_explain(self) -> list[ImageExample]:
        """Return none."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        left_out = skipped_fact(self.skipped, self.skipped_names)
        return {"device": self.device, "images": f"{self.samples:,}", **left_out, "time": f"{self.seconds:.1f} s"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"task": "multilabel", **asdict(self), "figures": [one._asdict() for one in self.figures]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LabelEvaluation":
        """Build from the dict of `to_dict`."""
        plain = {key: value for key, value in values.items() if key != "task"}
        plain["skipped_names"] = tuple(values.get("skipped_names", ()))
        return cls(**{**plain, "figures": tuple(LabelFigures(**one) for one in values["figures"])})


def evaluate_labels(
    model: Model, images: LabelSet, options: EvaluateOptions, progress: Progress | None = None
) -> LabelEvaluation:
    """Evaluate a multi-label classifier on a split; each image counts once.

    Raises:
        VitrailError: the model does not know a label of the data.
        DataError: an image cannot be read (with `bad="skip"`: none can), or a logit is not finite.
    """
    started, names = perf_counter(), class_names(model, model.config.num_classes, None)
    thresholds = read_thresholds(options.thresholds, names, options.threshold)
    truth = _match(images, names)
    rows: list[Tensor] = []
    numbers: list[int] = []
    skipped = list(images.skipped)
    with inference_mode_for(model) as device:
        prepare = EvalTransform(model.preprocess, best_pixels(len(images)))
        for index, pixels in _batches(prepare, images, options.batch, options.bad, skipped):
            logits = model(prepare.batch(pixels.to(device))).float().cpu()
            check_finite(logits, [images.ids[i] for i in index])
            rows.append(logits)
            numbers += index
            if progress is not None:
                progress(index[-1] + 1, len(images))
    if not rows:
        raise DataError(f"Not one image of {images.name} can be read.")
    logits, truth = torch.cat(rows), truth[numbers]
    scores, wanted = logits.sigmoid().numpy(), truth.numpy()
    return LabelEvaluation(
        model=model.variant,
        data=images.name,
        parameters=sum(value.numel() for value in model.parameters()),
        samples=len(scores),
        map=mean_ap(scores, wanted),
        f1=micro_f1(scores, wanted, thresholds),
        exact=float(np.mean(((scores >= thresholds) == wanted.astype(bool)).all(axis=1))),
        loss=float(binary_cross_entropy_with_logits(logits, truth)),
        figures=tuple(figures(scores, wanted, names, thresholds)),
        seconds=perf_counter() - started,
        device=str(device),
        **skipped_fields(skipped),
    )


def _batches(
    prepare: EvalTransform, images: LabelSet, size: int, bad: str, skipped: list[str]
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices and pixels of each batch; names of unreadable images are added to `skipped`."""

    def read(number: int) -> tuple[int, Tensor | None]:
        try:
            return number, prepare.to_pixels(images.image(number, prepare.mode))
        except ImageDecodeError:
            if bad == "fail":
                raise
            return number, None

    found = prefetch_map(read, range(len(images)), window=2 * size)
    for group in batched(found, balanced_batch_size(size, len(images))):
        good = [(number, pixels) for number, pixels in group if pixels is not None]
        skipped += [images.ids[number] for number, pixels in group if pixels is None]
        if good:
            yield [number for number, _ in good], torch.stack([pixels for _, pixels in good])


def _match(images: LabelSet, names: tuple[str, ...]) -> Tensor:
    """Return the labels of each image in the order of the model's outputs."""
    places = {name: number for number, name in enumerate(names)}
    missing = [name for name, count in images.counts().items() if count and name not in places]
    if missing:
        raise VitrailError(
            f"{images.name} has the label {missing[0]}, which the model does not know.\n"
            f"Its {len(names)} labels are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}."
        )
    truth = torch.zeros(len(images), len(names))
    for column, name in enumerate(images.classes):
        if name in places:
            truth[:, places[name]] = images.targets[:, column]
    return truth
