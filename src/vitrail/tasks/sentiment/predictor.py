"""Naming the classes of texts."""

from collections.abc import Sequence
from typing import Any

import torch

from vitrail.data.image_io import printable
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names, read_names
from vitrail.tasks.classes.result import check_finite, rank_classes
from vitrail.tasks.inference import evaluating, inference_mode_for
from vitrail.tasks.padded_texts import PaddedTexts, TextAnswers
from vitrail.tasks.results import Notify
from vitrail.tasks.sentiment.options import PredictOptions
from vitrail.tasks.sentiment.result import ClassifiedText
from vitrail.tasks.sentiment.word_effects import mark_words, word_effects
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import encode_texts, most_tokens, need_vocabulary
from vitrail.tasks.text_maps import text_view
from vitrail.tasks.text_sources import TextLine, checked_text
from vitrail.text.vocabulary import clean


class TextClassPredictor:
    """A classifier that names the classes of texts.

    Args:
        model: a classifier of texts on its device, with its vocabulary.
        options: number of classes, their names, explanation, precision.
        count: number of texts of the job, None if it is unknown.
        notify: receives the implementation that is chosen on the first batch.

    Raises:
        VitrailError: the number of class names is not that of the classes, or the model has no vocabulary.
    """

    def __init__(self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None):
        self.model, self.options = model, options
        precision: Any = options.precision or "fp32"
        self.runner = InferenceRunner(
            model, count, precision=precision, fast=options.optimize, notify=notify, kind=TextAnswers()
        )
        self.gate = self.runner.gate
        self.vocabulary = need_vocabulary(model)
        self.longest = most_tokens(model.config, model.metadata.get("max_length"))
        names: Any = options.labels
        given = read_names(names) if isinstance(names, str) or hasattr(names, "__fspath__") else names
        self.names = class_names(model, model.config.num_classes, given)
        kept = range(1, min(options.top, len(self.names)) + 1)
        self.csv_columns = tuple(f"{name}_{i}" for i in kept for name in ("label", "probability"))
        self.csv_columns += ("truncated", *(("words",) if options.explain else ()))

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        return [self.vocabulary.to_json(), list(self.names), self.options.top, self.options.explain, self.longest]

    def load(self, item: TextLine) -> str:
        """Return the text."""
        return checked_text(item)

    def predict(self, batch: list[tuple[TextLine, str]]) -> list[ClassifiedText]:
        """Return the likeliest classes of each text.

        Raises:
            DataError: a logit is not a finite number.
        """
        texts = [text for _, text in batch]
        encoded = encode_texts(self.vocabulary, texts, self.longest)
        with inference_mode_for(self.model) as device:
            logits = self.runner(PaddedTexts.of(encoded.ids, device))
        check_finite(logits, [item.name for item, _ in batch])
        ranked = rank_classes(logits, self.names, self.options.top)
        return [
            ClassifiedText(
                item.name,
                *best,
                text=clean(text)[0],
                truncated=encoded.truncated[row],
                replaced=encoded.replaced[row],
                unknown=encoded.unknown[row],
                words=self._explain(text),
            )
            for row, ((item, text), best) in enumerate(zip(batch, ranked, strict=True))
        ]

    def _explain(self, text: str) -> Any:
        if not self.options.explain:
            return ()
        with evaluating(self.model), torch.inference_mode():
            return word_effects(self.model, clean(text)[0], self.longest)

    def view(self, result: ClassifiedText) -> dict[str, Any]:
        """Return the tokens of the text and the self-attention of each layer and head."""
        return text_view(self.model, self.vocabulary, encode_texts(self.vocabulary, [result.text], self.longest).ids[0])

    def failure(self, item: TextLine, reason: str) -> ClassifiedText:
        """Return the result of a text that cannot be classified."""
        return ClassifiedText(item.name, error=reason)

    def table(self, results: Sequence[ClassifiedText]) -> Table:
        """Return one text per row, with its deciding words marked if that was asked for."""
        noted = any(result.notes() for result in results)
        rows = [[_shown(r), r.label, f"{r.probability:.1%}", *([r.notes()] if noted else [])] for r in results]
        return Table("", ["text", "class", "probability", *(["note"] if noted else [])], rows, right=["probability"])


def _shown(result: ClassifiedText) -> str:
    text = mark_words(result.words) if result.words else result.text
    text = printable(text.encode("utf-8", "replace"))
    return text if len(text) <= 400 else text[:400] + "..."
