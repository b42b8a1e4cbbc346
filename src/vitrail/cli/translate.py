"""`vitrail translate`: text in, text out, a line each."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vitrail.cli.task_flags import join_options
from vitrail.errors import VitrailError
from vitrail.tasks.translate.options import BeamFlags

EXAMPLES = """
vitrail translate runs/translate/multi30k-transformer "A dog runs in the snow."
vitrail translate MODEL --file news.en > news.de
vitrail translate MODEL --beam 1                              # each line of standard input
vitrail translate MODEL "A dog runs." --alignment dog.html   # cross-attention of every head
"""


def bind(words: Sequence[str]) -> type:
    """Return the class of the verb with the flags of the beam search."""
    return join_options(TranslateVerb, BeamFlags)


@dataclass(frozen=True)
class TranslateVerb:
    """Translate text: one line in, one line out, in the same order.

    Beam search by default. Empty lines stay empty. A line that is cut, because it is longer than the model's limit, is
    named on standard error. The translation of a line does not depend on the other lines.
    """

    model: Positional[str]
    """A model folder or a run folder of the task translate."""
    sentences: Positional[tuple[str, ...]] = ()
    """Texts; without any, and without --file, lines of standard input."""
    file: Path | None = None
    """Text file in UTF-8 with a text per line."""
    batch: int = 32
    """Lines searched together."""
    exact: bool = False
    """Search on until no better translation exists at all, through at most 10,000 prefixes; for short sentences.
    At that limit the best so far is printed, which is then open and not certified."""
    scores: bool = False
    """Print score and certificate before each translation, with tabs between."""
    alignment: Path | None = None
    """HTML page to write: cross-attention of every head of every layer, for the first 20 texts."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def run(self) -> int:
        """Translate, print, and return the exit code."""
        from vitrail.atomic_io import check_writable
        from vitrail.inference.model_loading import find_model, task_of
        from vitrail.parts.exported_file import check_layers
        from vitrail.tasks.text_sources import find_lines
        from vitrail.tasks.translate.translator import Translator

        if self.batch < 1:
            raise VitrailError(f"batch is {self.batch}; it must be at least 1.")
        if self.sentences and self.file:
            raise VitrailError("Texts and --file are two inputs; give one of them.")
        if self.alignment is not None:
            check_writable(self.alignment)
        model = find_model(self.model, device=self.device)
        if task_of(model) != "translate":
            raise VitrailError(
                f"{self.model} is a model of the task {task_of(model)}. Use: vitrail predict {self.model}"
            )
        if self.alignment is not None:
            check_layers(model, "its layers are needed for the alignment")
        flags: Any = self
        translator = Translator(model, flags, self.exact, lambda line: print(line, file=sys.stderr))
        lines = (
            [line.text for line in find_lines(self._sources())]
            if self.file or not self.sentences
            else list(self.sentences)
        )
        kept = []
        together = 1 if self.exact else self.batch  # a proof takes minutes: each line is printed as soon as it is done
        for first in range(0, len(lines), together):
            texts = lines[first : first + together]
            found = self._proved(translator, texts) if self.exact else translator(texts)
            for number, (text, each) in enumerate(zip(texts, found, strict=True), start=first + 1):
                self._print(number, each)
                if each.tokens and len(kept) < 20:
                    kept.append((text, each))
        if self.alignment is not None:
            self._align(translator, kept)
        return 0

    def _proved(self, translator: Any, texts: Sequence[str]) -> Any:
        """Translate with a bar of the prefixes that the exact search has expanded."""
        from vitrail.cli.progress import progress_bar
        from vitrail.generation.exact import LIMIT

        with progress_bar("exact search: prefixes", LIMIT) as show:
            return translator(texts, show)

    def _sources(self) -> Any:
        return self.file if self.file else "-"

    def _print(self, number: int, each: Any) -> None:
        facts = f"{each.score:.4f}\t{'certified' if each.certified else 'open'}\t" if self.scores else ""
        print(facts + each.text.replace("\r", " "), flush=True)
        if self.exact and not each.certified:
            from vitrail.generation.exact import LIMIT

            print(
                f"warning: line {number}: this is the best translation found so far, not proved to be the best: the"
                f" exact search ended at its limit of {LIMIT:,} prefixes. Shorter sentences need fewer.",
                file=sys.stderr,
            )
        if each.truncated:
            print(f"warning: line {number} was cut by {each.truncated:,} tokens.", file=sys.stderr)
        if each.replaced:
            print(f"warning: line {number} has {each.replaced:,} characters that are not Unicode.", file=sys.stderr)

    def _align(self, translator: Any, kept: Iterable[tuple[str, Any]]) -> None:
        from vitrail.atomic_io import write_file
        from vitrail.tasks.translate.alignment import align, alignment_page
        from vitrail.text.vocabulary import clean

        found = [align(translator, clean(text)[0], each) for text, each in kept]
        if not found:
            raise VitrailError("There is no text whose alignment could be drawn: every line is empty.")
        assert self.alignment is not None
        write_file(self.alignment, alignment_page(found, translator.model.variant).encode())
        print(f"alignment {self.alignment}", file=sys.stderr)
