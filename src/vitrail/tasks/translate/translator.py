"""Texts to translations: encode, truncate with a report, search, decode."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vitrail.generation.beam import BeamResult
from vitrail.parts.model import Model
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.native_decoding import decoder_of
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.tasks.translate.decoding import END, START, beam_translations
from vitrail.tasks.translate.options import BeamFlags


class Translated(NamedTuple):
    """A translation.

    Args:
        text: the translation, on one line; empty for an empty text.
        score: its log-probability after the length penalty.
        tokens: its tokens, the end included.
        source: tokens of the text.
        truncated: tokens that were cut off the text.
        replaced: characters of the text that no encoding has, each read as U+FFFD.
        certified: whether the bound of the search shows that no better translation was missed.
    """

    text: str
    score: float = 0.0
    tokens: tuple[int, ...] = ()
    source: tuple[int, ...] = ()
    truncated: int = 0
    replaced: int = 0
    certified: bool = True


class Translator:
    """A translation model with its vocabulary.

    Args:
        model: the model, on its device.
        flags: beam and length penalty.
        exact: whether to search until no better translation exists, or the limit of the search is reached.
        notify: receives the reason if native code cannot decode.

    Raises:
        VitrailError: the model has no vocabulary.
    """

    def __init__(
        self, model: Model, flags: BeamFlags, exact: bool = False, notify: Callable[[str], None] = lambda line: None
    ):
        self.model, self.flags, self.exact = model, flags, exact
        self.vocabulary = need_vocabulary(model)
        self.start, self.end = (self.vocabulary.id_of(token) for token in (START, END))
        self.longest = int(model.metadata.get("max_length", 256))
        self.decoder = decoder_of(model, flags.decode, self.longest, notify)

    def __call__(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda expanded: None
    ) -> list[Translated]:
        """Translate texts; an empty one, or one of spaces, has an empty translation.

        Args:
            texts: the texts.
            progress: receives the number of prefixes of the present text that an exact search has expanded.
        """
        full = [number for number, text in enumerate(texts) if text.strip()]
        encoded = self.vocabulary.encode([texts[number] for number in full], None, self.longest - 1, special=False)
        sources = [(*ids, self.end) for ids in encoded.ids]
        with inference_mode_for(self.model):
            found = beam_translations(self.decoder, sources, self.flags, self.start, self.end, self.exact, progress)
        results = [Translated("")] * len(texts)
        rows = zip(full, sources, found, encoded.truncated, encoded.replaced, strict=True)
        for number, source, result, truncated, replaced in rows:
            results[number] = self._translated(result, source, truncated, replaced)
        return results

    def _translated(self, result: BeamResult, source: tuple[int, ...], truncated: int, replaced: int) -> Translated:
        best = result.hypotheses[0]
        text = " ".join(self.vocabulary.decode(best.tokens).split("\n"))
        return Translated(text, best.score, best.tokens, source, truncated, replaced, result.certified)
