"""Result type: the likeliest classes of a text."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vitrail.tasks.classes.result import INK, PAPER, ClassProbabilities, draw_class
from vitrail.tasks.sentiment.word_effects import WordEffect, mark_words
from vitrail.text.vocabulary import UNKNOWN


@dataclass(frozen=True)
class ClassifiedText(ClassProbabilities):
    """The likeliest classes of one text, best first; or the reason why there are none.

    Args:
        text: the text.
        truncated: tokens that were cut off its end.
        replaced: characters that no encoding has, each read as U+FFFD.
        unknown: tokens that stand for anything outside the vocabulary.
        words: effect of each word, if that was asked for.

    Example:
        >>> print(ClassifiedText("a.txt:1", ("good", "bad"), (0.9, 0.1), (1, 0), text="a joy"))
        a.txt:1: good 90.0%, bad 10.0%
    """

    text: str = ""
    truncated: int = 0
    replaced: int = 0
    unknown: int = 0
    words: tuple[WordEffect, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """Return label and probability of each class, tokens cut off, and the marked text."""
        marked = (mark_words(self.words),) if self.words else ()
        return () if self.error else (*super().cells(), str(self.truncated), *marked)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        found = super().to_dict()
        if self.error is not None:
            return found
        found |= {"truncated": self.truncated, "replaced": self.replaced, "unknown": self.unknown}
        return found | ({"words": [list(word) for word in self.words]} if self.words else {})

    def notes(self) -> str:
        """Return how the text was changed, or nothing."""
        notes = [f"{self.truncated} tokens cut off"] if self.truncated else []
        notes += [f"{self.replaced} characters are not Unicode"] if self.replaced else []
        notes += [f"{self.unknown} {UNKNOWN}"] if self.unknown else []
        return "; ".join(notes)

    def draw(self, k: int = 3, width: int = 480) -> Image.Image:
        """Return an image of the text above its `k` likeliest classes."""
        row, best = max(20, width // 15), self.top(k)
        font = ImageFont.load_default(size=row * 0.5)
        across = width * 2 // row * 2
        lines = wrap((mark_words(self.words) if self.words else self.text)[: 24 * across], across)[:12]
        sheet = Image.new("RGB", (width, row * (len(lines) + len(best) + 1)), PAPER)
        pen = ImageDraw.Draw(sheet)
        for i, line in enumerate(lines):
            pen.text((row // 2, row * i + row // 2), line, fill=INK, font=font)
        for i, (label, probability) in enumerate(best, start=len(lines)):
            draw_class(pen, font, (row // 2, row * i + row // 2, width - row // 2, row), label, probability)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: class names are in the table."""
        return []

    def __str__(self) -> str:
        note = f" ({self.notes()})" if self.notes() else ""
        return super().__str__() + note
