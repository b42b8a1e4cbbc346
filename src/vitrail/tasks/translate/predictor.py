"""Translation of texts."""

from collections.abc import Sequence
from typing import Any

from vitrail.data.image_io import printable
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.tasks.table import Table
from vitrail.tasks.text_maps import alignment_view
from vitrail.tasks.text_sources import TextLine
from vitrail.tasks.translate.alignment import align
from vitrail.tasks.translate.options import PredictOptions
from vitrail.tasks.translate.result import TranslatedText
from vitrail.tasks.translate.translator import Translated, Translator
from vitrail.text.vocabulary import clean


class TranslationPredictor:
    """A model that translates texts.

    Args:
        model: the model, on its device, with its vocabulary.
        options: beam, length penalty.

    Raises:
        VitrailError: the model has no vocabulary.
    """

    gate = None
    csv_columns = ("translation", "score", "truncated", "certified")

    def __init__(self, model: Model, options: PredictOptions):
        self.options, self.translator = options, Translator(model, options, options.exact)

    def job(self) -> list[object]:
        """Return the options that determine the translations, apart from the weights."""
        o = self.options
        return [self.translator.vocabulary.to_json(), o.beam, o.penalty, o.length_penalty, o.exact, o.search, o.decode]

    def load(self, item: TextLine) -> str:
        """Return the text."""
        return item.text

    def predict(self, batch: list[tuple[TextLine, str]]) -> list[TranslatedText]:
        """Return the translations."""
        found = self.translator([text for _, text in batch])
        return [
            TranslatedText(
                item.name,
                clean(text)[0],
                each.text,
                each.score,
                each.truncated,
                each.replaced,
                each.certified,
                source=each.source,
                target=each.tokens,
            )
            for (item, text), each in zip(batch, found, strict=True)
        ]

    def view(self, result: TranslatedText) -> dict[str, Any]:
        """Return the tokens of both sides, and the cross-attention of each layer and head, as `alignment_view`.

        An exported file has none.
        """
        if not result.target or exported_file(self.translator.model):
            return alignment_view((), (), None)
        given = Translated(result.translation, tokens=result.target, source=result.source)
        found = align(self.translator, result.text, given)
        return alignment_view(found.source, found.target, found.maps)

    def failure(self, item: TextLine, reason: str) -> TranslatedText:
        """Return the result of a text that cannot be translated."""
        return TranslatedText(item.name, error=reason)

    def table(self, results: Sequence[TranslatedText]) -> Table:
        """Return one text per row."""
        noted = any(result.notes() for result in results)
        rows = [[_short(r.text), _short(r.translation), *([r.notes()] if noted else [])] for r in results]
        return Table("", ["text", "translation", *(["note"] if noted else [])], rows)


def _short(text: str) -> str:
    text = printable(text.encode("utf-8", "replace"))
    return text if len(text) <= 400 else text[:400] + "..."
