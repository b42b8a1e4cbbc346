"""Evaluation of masked predictions on a text."""

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.text_streams import TextStream
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.tasks.formatting import duration, percent
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.pretrain.options import EvaluateOptions
from vitrail.tasks.pretrain.segments import MaskedLineLoader, SegmentSet
from vitrail.tasks.pretrain.training import PretrainMetric, check_word_head, frame_of, masked_scores, rule_of
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import most_tokens, need_vocabulary


@dataclass(frozen=True)
class PretrainEvaluation:
    """Figures of masked predictions.

    Args:
        model: name of the variant.
        data: name of the text.
        parameters: number of parameters.
        segments: segments of the text.
        masked_nats: mean loss of a masked word, in nats.
        masked_accuracy: share of masked words named right.
        next_accuracy: share of next lines named right; None if they were not learnt.
        seconds: wall time.
        device: device of the model.
    """

    model: str
    data: str
    parameters: int
    segments: int
    masked_nats: float
    masked_accuracy: float
    next_accuracy: float | None
    seconds: float
    device: str

    def metrics(self) -> dict[str, float]:
        """Return the figures by name."""
        found = {"loss": self.masked_nats, "masked_nats": self.masked_nats, "masked_accuracy": self.masked_accuracy}
        return found if self.next_accuracy is None else {**found, "next_accuracy": self.next_accuracy}

    def summary(self) -> str:
        """Return the figures in a sentence."""
        after = "" if self.next_accuracy is None else f"; {percent(self.next_accuracy)} of the next lines"
        return (
            f"In {self.segments:,} segments of {self.data}, {percent(self.masked_accuracy)} of the masked words are"
            f" named right ({self.masked_nats:.3f} nats){after}."
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the figures."""
        cells = [
            ["loss", f"{self.masked_nats:.4f}", "nats per masked word"],
            ["masked words", percent(self.masked_accuracy, 2), "named right"],
            ["next lines", percent(self.next_accuracy, 2), "named right"],
        ]
        return [Table("", ["measure", "value", ""], cells, right=["value"])]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures."""
        return [
            MetricCard("Masked words", percent(self.masked_accuracy), "named right"),
            MetricCard("Loss", f"{self.masked_nats:.3f}", "nats per masked word"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return none."""
        return []

    def images_to_explain(self) -> list[ImageExample]:
        """Return no image."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        return {"data": self.data, "masks": "the same in every validation", "time": duration(self.seconds)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "pretrain", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PretrainEvaluation":
        """Build from the dict of `to_dict`."""
        return cls(**{key: value for key, value in values.items() if key not in ("format_version", "task")})


def evaluate_pretrained(
    model: Model, stream: TextStream, options: EvaluateOptions, progress: Progress | None = None
) -> PretrainEvaluation:
    """Measure masked predictions, and next lines if the model learnt them.

    Args:
        model: a pretrained model on its device, with its vocabulary.
        stream: the text.
        options: batch.
        progress: receives the numbers of characters done and of all, after each batch.

    Raises:
        VitrailError: the model has another head.
    """
    check_word_head(model)
    started, vocabulary = perf_counter(), need_vocabulary(model)
    longest = most_tokens(model.config, model.metadata.get("max_length"))
    pairs = bool(model.metadata.get("next_sentence"))
    if pairs:
        check_layers(model, "has no input for the next lines that this model learnt to judge")
    dataset = SegmentSet(stream, vocabulary, (longest - 3) // 2 if pairs else longest - 2)
    order = BucketedSampler([len(segment) for segment in dataset.segments], options.batch, shuffle=False)
    rule = rule_of(vocabulary, model.metadata.get("mask", 0.15))
    loader = MaskedLineLoader(dataset, frame_of(vocabulary), rule, order, pairs, fixed=True)
    with inference_mode_for(model) as device:
        metric, done = PretrainMetric(device), 0
        for batch in loader.epoch():
            batch = batch.to(device)
            metric.update(masked_scores(model, batch), batch)
            done += len(batch.index)
            if progress is not None:
                progress(len(stream) * done // len(dataset), len(stream))
    figures = metric.compute()
    return PretrainEvaluation(
        model=model.variant,
        data=stream.name,
        parameters=sum(value.numel() for value in model.parameters()),
        segments=len(dataset),
        masked_nats=figures["masked_nats"],
        masked_accuracy=figures["masked_accuracy"],
        next_accuracy=figures.get("next_accuracy"),
        seconds=perf_counter() - started,
        device=str(device),
    )
