"""Continuing texts, each a line of a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vitrail.data.image_io import printable
from vitrail.tasks.language.continuation import continue_text, generate_pieces
from vitrail.tasks.language.evaluation import context_of
from vitrail.tasks.language.options import PredictOptions
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.tasks.text_sources import TextLine, checked_text
from vitrail.text.vocabulary import clean


@dataclass(frozen=True)
class Continuation:
    """A text and its continuation; or the reason why there is none.

    Args:
        path: name of the text.
        text: the text.
        continuation: text of the model.
        error: reason.
    """

    path: str
    text: str = ""
    continuation: str = ""
    error: str | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the continuation."""
        return () if self.error else (self.continuation,)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        return {"path": self.path, "text": self.text, "continuation": self.continuation}

    def draw(self, width: int = 480) -> Image.Image:
        """Return an image of the text."""
        lines = [part for line in (self.text + self.continuation).split("\n") for part in wrap(line, 64) or [""]]
        sheet = Image.new("RGB", (width, 18 * len(lines) + 16), "#ffffff")
        font = ImageFont.load_default(size=13)
        ImageDraw.Draw(sheet).multiline_text((8, 8), "\n".join(lines), fill="#1d232b", font=font)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: the text is in the table."""
        return []

    def __str__(self) -> str:
        return f"{self.path}: {self.error or self.continuation}"


class ContinuationPredictor:
    """A language model that continues texts.

    Args:
        model: a language model on its device, with its vocabulary.
        options: choice of tokens.
    """

    csv_columns = ("continuation",)
    gate = None
    sequential = True

    def __init__(self, model: Any, options: PredictOptions):
        self.model, self.options, self.context = model, options, context_of(model)
        self.vocabulary = need_vocabulary(model)

    def job(self) -> list[Any]:
        """Return the options that determine the texts, apart from the weights."""
        o = self.options
        return [self.vocabulary.to_json(), self.context, o.tokens, o.temperature, o.top_k, o.top_p, o.seed, o.decode]

    def load(self, item: TextLine) -> str:
        """Return the text."""
        return checked_text(item)

    def predict(self, batch: list[tuple[TextLine, str]]) -> list[Continuation]:
        """Continue each text; the result does not depend on the others."""
        return [Continuation(item.name, clean(text)[0], self._continue(text)) for item, text in batch]

    def _continue(self, text: str) -> str:
        return continue_text(self.model, text, self.options, self.context)

    def stream(self, loaded: str) -> Iterator[dict[str, Any]]:
        """Yield the pieces of a continuation with their probabilities and the likeliest alternatives."""
        for piece in generate_pieces(self.model, loaded, self.options, self.context):
            yield piece._asdict()

    def failure(self, item: TextLine, reason: str) -> Continuation:
        """Return the result of a text that cannot be continued."""
        return Continuation(item.name, error=reason)

    def table(self, results: Sequence[Continuation]) -> Table:
        """Return one text per row."""
        rows = [[printable(each.text.encode("utf-8", "replace")), printable(each.continuation)] for each in results]
        return Table("", ["text", "continuation"], rows)
