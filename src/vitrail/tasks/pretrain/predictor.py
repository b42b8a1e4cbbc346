"""Filling masked words of texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from vitrail.data.image_io import printable
from vitrail.errors import DataError
from vitrail.parts.model import Model
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.pretrain.options import PredictOptions
from vitrail.tasks.pretrain.training import MASK, check_word_head
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import most_tokens, need_vocabulary
from vitrail.tasks.text_maps import text_view
from vitrail.tasks.text_sources import TextLine, checked_text


@dataclass(frozen=True)
class FilledText:
    """The likeliest words of each mask of a text; or the reason why there are none.

    Args:
        path: name of the text.
        words: for each mask the words with their probabilities, best first.
        error: reason.
        ids: token ids of the text.
    """

    path: str
    words: tuple[tuple[tuple[str, float], ...], ...] = ()
    error: str | None = None
    ids: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def cells(self) -> tuple[str, ...]:
        """Return the best word of each mask."""
        return () if self.error else (" ".join(found[0][0] for found in self.words),)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        return {"path": self.path, "masks": [[[word, round(p, 6)] for word, p in found] for found in self.words]}

    def draw(self) -> Image.Image:
        """Return an image of the words."""
        sheet = Image.new("RGB", (480, 22 * (len(self.words) + 1)), "#ffffff")
        ImageDraw.Draw(sheet).multiline_text((8, 6), str(self), fill="#1d232b", font=ImageFont.load_default(size=14))
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: the words are in the table."""
        return []

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + "; ".join(", ".join(f"{word} {p:.1%}" for word, p in found) for found in self.words)


class MaskedWordPredictor:
    """A pretrained model that fills masked words.

    Args:
        model: a model with a head for masked words, and its vocabulary.
        options: number of words.

    Raises:
        VitrailError: the model has another head.
    """

    csv_columns = ("words",)
    gate = None
    sequential = True

    def __init__(self, model: Model, options: PredictOptions):
        check_word_head(model)
        self.model, self.options, self.vocabulary = model, options, need_vocabulary(model)
        self.longest = most_tokens(model.config, model.metadata.get("max_length"))

    def job(self) -> list[object]:
        """Return the options that determine the words, apart from the weights."""
        return [self.vocabulary.to_json(), self.options.top, self.longest]

    def load(self, item: TextLine) -> tuple[int, ...]:
        """Return the token ids of a text.

        Raises:
            DataError: it has no mask, or too many tokens.
        """
        ids = self.vocabulary.encode([checked_text(item)]).ids[0]
        if self.vocabulary.id_of(MASK) not in ids:
            raise DataError(f"the text has no {MASK} to fill")
        if len(ids) > self.longest:
            raise DataError(f"the text has {len(ids)} tokens; the model reads {self.longest}")
        return ids

    def predict(self, batch: list[tuple[TextLine, tuple[int, ...]]]) -> list[FilledText]:
        """Fill each text."""
        return [FilledText(item.name, self._fill(ids), ids=ids) for item, ids in batch]

    def _fill(self, ids: tuple[int, ...]) -> Any:
        with inference_mode_for(self.model) as device:
            found = self.model(torch.tensor([ids], device=device))
            words = found[0] if isinstance(found, tuple) else found
        places = [place for place, token in enumerate(ids) if token == self.vocabulary.id_of(MASK)]
        best = words[0, places].float().softmax(-1).cpu().topk(min(self.options.top, words.shape[-1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(
            tuple((self.vocabulary.decode([token]).strip(), p) for token, p in zip(tokens, shares, strict=True))
            for tokens, shares in rows
        )

    def view(self, result: FilledText) -> dict[str, Any]:
        """Return the tokens of the text and the self-attention of each layer and head."""
        return text_view(self.model, self.vocabulary, result.ids)

    def failure(self, item: TextLine, reason: str) -> FilledText:
        """Return the result of a text that cannot be filled."""
        return FilledText(item.name, error=reason)

    def table(self, results: Sequence[FilledText]) -> Table:
        """Return one mask per row."""
        rows = [
            [printable(each.path), ", ".join(f"{printable(word)} {p:.1%}" for word, p in found)]
            for each in results
            for found in each.words
        ]
        return Table("", ["text", "words"], rows)
