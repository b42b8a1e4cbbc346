"""Result type: the translation of a text."""

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True)
class TranslatedText:
    """The translation of one text, or the reason why there is none.

    Args:
        path: name of the text.
        text: the text.
        translation: its translation.
        score: log-probability after the length penalty.
        truncated: tokens that were cut off the end of the text.
        replaced: characters that no encoding has, each read as U+FFFD.
        certified: whether the bound of the search shows that no better translation was missed.
        error: the reason.
        source: token ids of the text, the end included.
        target: token ids of the translation, the end included.

    Example:
        >>> print(TranslatedText("a.txt:1", "A dog.", "Ein Hund.", -0.2))
        a.txt:1: Ein Hund.
    """

    path: str
    text: str = ""
    translation: str = ""
    score: float = 0.0
    truncated: int = 0
    replaced: int = 0
    certified: bool = True
    error: str | None = None
    source: tuple[int, ...] = field(default=(), repr=False, compare=False)
    target: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a CSV row."""
        return () if self.error else (self.translation, f"{self.score:.6f}", str(self.truncated), str(self.certified))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error:
            return {"path": self.path, "error": self.error}
        names = ("path", "translation", "score", "truncated", "replaced", "certified")
        return {name: getattr(self, name) for name in names}

    def notes(self) -> str:
        """Return how the text was changed, or nothing."""
        notes = [f"{self.truncated} tokens cut off"] if self.truncated else []
        notes += [f"{self.replaced} characters are not Unicode"] if self.replaced else []
        return "; ".join(notes)

    def draw(self, width: int = 480) -> Image.Image:
        """Return an image of the text above its translation."""
        row = max(16, width // 24)
        font = ImageFont.load_default(size=row * 0.7)
        lines = [
            *wrap(self.text, 2 * width // row)[:12],
            "",
            *wrap(self.error or self.translation, 2 * width // row)[:12],
        ]
        sheet = Image.new("RGB", (width, row * (len(lines) + 1)), "white")
        pen = ImageDraw.Draw(sheet)
        for number, line in enumerate(lines):
            pen.text((row // 2, row * number + row // 2), line, fill="black", font=font)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: translations are in the table."""
        return []

    def __str__(self) -> str:
        note = f" ({self.notes()})" if self.notes() else ""
        return f"{self.path}: {self.error or self.translation}{note}"
