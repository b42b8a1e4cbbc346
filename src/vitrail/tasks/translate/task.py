"""Translation as a task."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.pair_files import open_pairs
from vitrail.data.pairs import ParallelSplits, ParallelText
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.findings import Findings
from vitrail.tasks.options import Bad
from vitrail.tasks.program import ProgramSpec
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.step_program import translation_program
from vitrail.tasks.task import MetricSpec, RunSpec
from vitrail.tasks.text_sources import TextLine, find_lines
from vitrail.tasks.translate.evaluation import TranslationEvaluation, evaluate_translation
from vitrail.tasks.translate.options import EvaluateOptions, PredictOptions, TrainOptions
from vitrail.tasks.translate.predictor import TranslationPredictor
from vitrail.tasks.translate.training import TranslationTraining


class TranslationTask:
    """One text in another language per text."""

    name = "translate"
    reads = "text"
    metrics = (
        MetricSpec("bleu", "BLEU", note="Of greedy translations, lower-cased, 13a tokens, smoothed as in sacreBLEU."),
    )

    def open(self, spec: str, val_share: float, bad: Bad) -> ParallelSplits:
        """Open a parallel text."""
        if not spec:
            raise VitrailError("Nothing to learn from. Give a folder with train.en and train.de, a .tsv or a .jsonl.")
        return open_pairs(spec, val_share, bad)

    def open_split(self, spec: str, split: str) -> "ParallelText | OpenedSplit":
        """Open one split of it, with its test sets; `all` is a file alone."""
        data = open_pairs(spec, 0.0 if split == "all" else 0.1)
        if split != "all":
            data.require(split)
            return OpenedSplit(split, data)
        found = dict(data)
        if len(found) > 1:
            raise VitrailError(f"{spec} is split into {', '.join(found)}. Evaluate one of them: --split test.")
        return next(iter(found.values()))

    def check(self, spec: str, val_share: float) -> Findings:
        """Check for empty sides, languages of different length, and lines that two splits share."""
        data = open_pairs(spec, val_share)
        texts = {**dict(data), **data.tests}
        bad, sizes, seen, shared = [], [], dict[tuple[str, str], str](), 0
        for split, text in texts.items():
            counts = {language: len(lines) for language, lines in text.lines.items()}
            sizes.append(f"{split}: {len(text):,} lines, {', '.join(text.languages)}")
            if len(set(counts.values())) > 1:
                bad.append(f"{text.name}: the languages differ in their number of lines: {counts}")
            for language, lines in text.lines.items():
                bad += [f"{text.ids[i]} is empty in {language}" for i, line in enumerate(lines) if not line.strip()]
                shared += sum(seen.setdefault((language, line), split) not in (split, "test") for line in lines)
        warnings = [f"leakage: {shared} lines are in more than one split"] if shared else []
        return Findings(tuple(bad), tuple(warnings), tuple(sizes))

    def bind(self, options: TrainOptions, run: RunSpec, splits: ParallelSplits) -> TranslationTraining:
        """Build a translation model for a data set."""
        return TranslationTraining(options, run, splits)

    def evaluate(
        self,
        model: Model,
        data: "ParallelText | OpenedSplit",
        options: EvaluateOptions,
        notify: Notify = lambda choice: None,
        progress: Progress | None = None,
    ) -> TranslationEvaluation:
        """Evaluate a translation model on a split, or on the test set of the options."""
        text: ParallelText = data.choose(options.testset) if isinstance(data, OpenedSplit) else data
        return evaluate_translation(model, text, options, progress)

    def read_evaluation(self, values: dict[str, Any]) -> TranslationEvaluation:
        """Read the `to_dict` of an evaluation."""
        return TranslationEvaluation.from_dict(values)

    def collect(self, sources: object) -> Sequence[TextLine]:
        """List texts."""
        return find_lines(sources)

    def predictor(
        self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None
    ) -> TranslationPredictor:
        """Return a predictor of translations."""
        return TranslationPredictor(model, options)

    def program(self, model: Model) -> ProgramSpec:
        """Return what an exported step of decoding takes and gives; its encoder is in the same program."""
        return translation_program(model)


class OpenedSplit:
    """A split of a data set that may have several test sets.

    Args:
        split: name of the split.
        data: the data set.
    """

    def __init__(self, split: str, data: ParallelSplits):
        self.split, self.data = split, data

    def __len__(self) -> int:
        return len(self.data.require(self.split))

    def choose(self, testset: str | None) -> ParallelText:
        """Return the split, or a test set by its name."""
        return self.data.require(testset or self.split)


TASK = TranslationTask()
