"""Continuing texts, each a line of a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vitrail.data.image_io import printable
from vitrail.parts.model import Model
from vitrail.tasks.language.continuation import continue_text, generate_pieces, read_prompt
from vitrail.tasks.language.evaluation import context_of
from vitrail.tasks.language.options import PredictOptions
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.tasks.text_sources import TextLine, checked_text
from vitrail.text.vocabulary import UNKNOWN, clean

_DRAWN = 120
"""Lines of a drawn text."""


@dataclass(frozen=True)
class Continuation:
    """A text and its continuation; or the reason why there is none.

    Args:
        path: name of the text.
        text: the text.
        continuation: text of the model.
        error: reason.
        unread: tokens at the beginning of the text that the model does not read.
        replaced: characters that no encoding has, each read as U+FFFD.
        unknown: tokens of the text that stand for anything outside the vocabulary.
    """

    path: str
    text: str = ""
    continuation: str = ""
    error: str | None = None
    unread: int = 0
    replaced: int = 0
    unknown: int = 0

    def cells(self) -> tuple[str, ...]:
        """Return the continuation, and the tokens that were not read."""
        return () if self.error else (self.continuation, str(self.unread))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        found = {"path": self.path, "text": self.text, "continuation": self.continuation}
        return {**found, "unread": self.unread, "replaced": self.replaced, "unknown": self.unknown}

    def notes(self) -> str:
        """Return what was done to the text, or nothing."""
        notes = [f"{self.unread} tokens at the beginning not read"] if self.unread else []
        notes += [f"{self.replaced} characters are not Unicode"] if self.replaced else []
        return "; ".join(notes + ([f"{self.unknown} {UNKNOWN}"] if self.unknown else []))

    def draw(self, width: int = 480) -> Image.Image:
        """Return an image of the text."""
        text = (self.text + self.continuation)[-64 * _DRAWN :]  # the end, which has the continuation
        lines = [part for line in text.split("\n") for part in wrap(line, 64) or [""]][-_DRAWN:]
        sheet = Image.new("RGB", (width, 18 * len(lines) + 16), "#ffffff")
        font = ImageFont.load_default(size=13)
        ImageDraw.Draw(sheet).multiline_text((8, 8), "\n".join(lines), fill="#1d232b", font=font)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: the text is in the table."""
        return []

    def __str__(self) -> str:
        note = f" ({self.notes()})" if self.notes() else ""
        return f"{self.path}: {self.error or self.continuation}{note}"


class ContinuationPredictor:
    """A language model that continues texts.

    Args:
        model: a language model on its device, with its vocabulary.
        options: choice of tokens.
    """

    csv_columns = ("continuation", "unread")
    gate = None
    sequential = True

    def __init__(self, model: Model, options: PredictOptions):
        self.model, self.options, self.context = model, options, context_of(model)
        self.vocabulary = need_vocabulary(model)

    def job(self) -> list[object]:
        """Return the options that determine the texts, apart from the weights."""
        o = self.options
        return [self.vocabulary.to_json(), self.context, o.tokens, o.temperature, o.top_k, o.top_p, o.seed, o.decode]

    def load(self, item: TextLine) -> str:
        """Return the text."""
        return checked_text(item)

    def predict(self, batch: list[tuple[TextLine, str]]) -> list[Continuation]:
        """Continue each text; the result does not depend on the others."""
        return [self._continue(item.name, text) for item, text in batch]

    def _continue(self, name: str, text: str) -> Continuation:
        read = read_prompt(self.vocabulary, text, self.context)
        added = continue_text(self.model, text, self.options, self.context)
        return Continuation(name, clean(text)[0], added, None, read.unread, read.replaced, read.unknown)

    def stream(self, loaded: str) -> Iterator[dict[str, Any]]:
        """Yield the pieces of a continuation with their probabilities and the likeliest alternatives."""
        for piece in generate_pieces(self.model, loaded, self.options, self.context):
            yield piece._asdict()

    def failure(self, item: TextLine, reason: str) -> Continuation:
        """Return the result of a text that cannot be continued."""
        return Continuation(item.name, error=reason)

    def table(self, results: Sequence[Continuation]) -> Table:
        """Return one text per row."""
        noted = any(each.notes() for each in results)
        rows = [
            [
                printable(each.text.encode("utf-8", "replace")),
                printable(each.continuation),
                *([each.notes()] * noted),
            ]
            for each in results
        ]
        return Table("", ["text", "continuation", *(["note"] * noted)], rows)
