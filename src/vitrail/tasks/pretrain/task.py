"""Masked pretraining as a task."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.text_streams import TextStream, TextStreams, open_streams
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.parts.text_heads import PretrainingHead, PretrainingLogits, SentenceVector
from vitrail.tasks.findings import Findings
from vitrail.tasks.options import Bad
from vitrail.tasks.pretrain.evaluation import PretrainEvaluation, evaluate_pretrained
from vitrail.tasks.pretrain.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.pretrain.predictor import MaskedWordPredictor
from vitrail.tasks.pretrain.training import PretrainTraining, check_word_head
from vitrail.tasks.program import ProgramSpec, TensorSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.task import MetricSpec, RunSpec
from vitrail.tasks.text_program import text_program
from vitrail.tasks.text_sources import TextLine, find_lines


class PretrainTask:
    """Masked words, and whether a line follows another."""

    name = "pretrain"
    reads = "text"
    metrics = (
        MetricSpec("masked_nats", "Loss per masked word", False, "nats"),
        MetricSpec("masked_accuracy", "Masked words"),
        MetricSpec("next_accuracy", "Next lines"),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> TextStreams:
        """Open a text, a sentence or paragraph a line."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a text file with a sentence or paragraph in each line.")
        return open_streams(spec, val_share)

    def open_split(self, spec: str, split: str) -> TextStream:
        """Open one split of it; `all` is a file without splits."""
        if split == "all":
            return open_streams(spec, val_share=0.0).require("train")
        return open_streams(spec).require(split)

    def check(self, spec: str, val_share: float) -> Findings:
        """Read the text."""
        sizes = (f"{split}: {len(text):,} characters" for split, text in open_streams(spec, val_share))
        return Findings(counts=tuple(sizes))

    def bind(self, options: TrainOptions, run: RunSpec, splits: TextStreams) -> PretrainTraining:
        """Build a BERT for a text."""
        return PretrainTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: TextStream,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> PretrainEvaluation:
        """Measure masked predictions on a text."""
        return evaluate_pretrained(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> PretrainEvaluation:
        """Read the `to_dict` of an evaluation."""
        return PretrainEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[TextLine]:
        """List texts with masks."""
        return find_lines(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> MaskedWordPredictor:
        """Return a predictor of masked words."""
        return MaskedWordPredictor(model, options)

    def program(self, model: Model) -> ProgramSpec:
        """Return inputs and outputs of an exported program of a model: scores of all words, or a vector of a text.

        Raises:
            VitrailError: the model has another head.
        """
        if isinstance(model.head, SentenceVector):
            return text_program(model, (TensorSpec("vector", ("batch", model.config.dim)),))
        check_word_head(model)
        words = TensorSpec("words", ("batch", "length", model.config.vocab_size), classes=2)
        if isinstance(model.head, PretrainingHead):
            outputs = words, TensorSpec("next", ("batch", 2), classes=1)
            return text_program(model, outputs, lambda found: PretrainingLogits(*found))
        return text_program(model, (words,))


TASK = PretrainTask()
