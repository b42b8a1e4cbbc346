"""Sentence classification as a task."""

from collections.abc import Sequence
from typing import Any, Literal

from vitrail.data.text_tables import open_texts
from vitrail.data.texts import TextSet, TextSplits
from vitrail.errors import VitrailError, unknown
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec, TensorSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.sentiment.evaluation import SentimentEvaluation, evaluate_sentiment
from vitrail.tasks.sentiment.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.sentiment.predictor import TextClassPredictor
from vitrail.tasks.sentiment.training import SentimentTraining
from vitrail.tasks.task import MetricSpec, RunSpec
from vitrail.tasks.text_program import text_program
from vitrail.tasks.text_sources import TextLine, find_lines


class SentimentTask:
    """One class per text."""

    name = "sentiment"
    reads = "text"
    metrics = (
        MetricSpec("top1", "Accuracy", note="Share of validation sentences named right."),
        MetricSpec("top5", "Top-5"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> TextSplits:
        """Open labelled texts."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a folder with train.tsv, or a table with text and label.")
        return open_texts(spec, val_share, bad)

    def open_evaluation(self, spec: str, split: str, options: EvaluateOptions) -> TextSet:
        """Open the split that is evaluated; with `bad="skip"` without the rows that cannot be used."""
        return self.open_split(spec, split, options.bad)

    def open_split(self, spec: str, split: str, bad: Literal["fail", "skip"] = "fail") -> TextSet:
        """Open one split of them; `all` is a table without splits."""
        if split in ("train", "val", "test"):
            return open_texts(spec, bad=bad).require(split)
        if split != "all":
            raise unknown("split", split, ("train", "val", "test", "all"))
        found = dict(open_texts(spec, val_share=0.0, bad=bad))
        if len(found) > 1:
            raise VitrailError(f"{spec} is split into {', '.join(found)}. Evaluate one of them: --split test.")
        return next(iter(found.values()))

    def check(self, spec: str, val_share: float) -> Findings:
        """Check the rows, and texts that two splits share."""
        data = open_texts(spec, val_share, bad="list")
        seen: dict[str, str] = {}
        shared = 0
        for split, texts in data:
            shared += sum(seen.setdefault(text, split) != split for text in texts.texts)
        warnings = (f"leakage: {shared} texts are in more than one split",) if shared else ()
        sizes = tuple(f"{split}: {len(texts):,} texts, {texts.counts()}" for split, texts in data)
        return Findings(tuple(data.problems), warnings, sizes)

    def bind(self, options: TrainOptions, run: RunSpec, splits: TextSplits) -> SentimentTraining:
        """Build a classifier for a data set."""
        return SentimentTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: TextSet,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> SentimentEvaluation:
        """Evaluate a classifier on a split."""
        return evaluate_sentiment(model, data, options, notify, progress)

    def read_evaluation(self, values: dict[str, Any]) -> SentimentEvaluation:
        """Read the `to_dict` of an evaluation."""
        return SentimentEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[TextLine]:
        """List texts."""
        return find_lines(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> TextClassPredictor:
        """Return a predictor of class names."""
        return TextClassPredictor(model, options, count, notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model."""
        return text_program(model, (TensorSpec("logits", ("batch", model.config.num_classes), classes=1),))


TASK = SentimentTask()
