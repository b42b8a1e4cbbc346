"""Language modelling as a task."""

from collections.abc import Iterator, Sequence
from typing import Any

from vitrail.data.text_streams import TextStream, TextStreams, open_streams
from vitrail.errors import VitrailError, unknown
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.language.continuation import generate_text
from vitrail.tasks.language.evaluation import LanguageEvaluation, context_of, evaluate_language
from vitrail.tasks.language.options import EvaluateOptions, GenerateOptions, PredictOptions, TrainOptions
from vitrail.tasks.language.predictor import ContinuationPredictor
from vitrail.tasks.language.training import LanguageTraining, check_language
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.step_program import language_program
from vitrail.tasks.task import MetricSpec, RunSpec
from vitrail.tasks.text_sources import TextLine, find_lines


class LanguageTask:
    """The next token of a text."""

    name = "language"
    reads = "text"
    metrics = (
        MetricSpec("nats", "Loss per token", False, "nats", "Over the whole validation text, windows not overlapping."),
        MetricSpec("perplexity", "Perplexity", False, ""),
        MetricSpec("bits_per_byte", "Bits per byte", False, ""),
        MetricSpec("word_perplexity", "Perplexity per word", False, ""),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> TextStreams:
        """Open a text."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a text file, or a folder with train.txt and valid.txt.")
        return open_streams(spec, val_share)

    def open_split(self, spec: str, split: str) -> TextStream:
        """Open one split of it; `all` is a file without splits."""
        if split in ("train", "val", "test"):
            found = dict(open_streams(spec))
            return found[split] if split in found else open_streams(spec).require(split)  # pyright: ignore
        if split != "all":
            raise unknown("split", split, ("train", "val", "test", "all"))
        [stream, *others] = dict(open_streams(spec, val_share=0.0)).values()
        if others:
            raise VitrailError(f"{spec} is split. Evaluate one of its texts: --split test.")
        return stream

    def check(self, spec: str, val_share: float) -> Findings:
        """Read the text."""
        found = open_streams(spec, val_share)
        sizes = (f"{split}: {len(text):,} characters, {text.words:,} words" for split, text in found)
        return Findings(counts=tuple(sizes))

    def bind(self, options: TrainOptions, run: RunSpec, splits: TextStreams) -> LanguageTraining:
        """Build a language model for a text."""
        return LanguageTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: TextStream,
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> LanguageEvaluation:
        """Evaluate a language model on a text."""
        return evaluate_language(model, data, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> LanguageEvaluation:
        """Read the `to_dict` of an evaluation."""
        return LanguageEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[TextLine]:
        """List texts to continue."""
        return find_lines(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> ContinuationPredictor:
        """Return a predictor of continuations."""
        return ContinuationPredictor(model, options)

    def generator(
        self, model: Model, options: GenerateOptions, prompt: str, notify: Notify = lambda choice: None
    ) -> Iterator[str]:
        """Return the pieces of a continuation as they come."""
        check_language(model.variant)
        return generate_text(model, prompt, options, context_of(model), notify)

    def program(self, model: Model) -> ProgramSpec:
        """Return what an exported step of decoding takes and gives."""
        return language_program(model)


TASK = LanguageTask()
