"""Long texts for language models: one text for each split."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.image_io import printable
from vitrail.data.index import SPLIT_NAMES, SPLITS, Split
from vitrail.data.text_lines import read_text
from vitrail.errors import DataError, VitrailError

SUFFIXES = (".txt", ".text", ".tokens", ".md", "")


@dataclass(frozen=True)
class TextStream:
    """One long text.

    Args:
        name: name in messages, such as `shakespeare train`.
        text: the text.
    """

    name: str
    text: str

    def __len__(self) -> int:
        return len(self.text)

    @property
    def size(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self.text.encode("utf-8", "replace"))

    @property
    def words(self) -> int:
        """Words between white space, and an end for each line, as WikiText counts (`<eos>`)."""
        return len(self.text.split()) + self.text.count("\n")


@dataclass(frozen=True)
class TextStreams:
    """A text by split.

    Args:
        name: the data set, for display.
        splits: the texts that exist.
    """

    name: str
    splits: dict[Split, TextStream]

    def __iter__(self) -> Iterator[tuple[Split, TextStream]]:
        """Iterate over the splits that exist."""
        return iter(self.splits.items())

    def require(self, split: str) -> TextStream:
        """Return a split.

        Raises:
            DataError: it does not exist; the message names the existing ones.
        """
        found = next((part for name, part in self if name == split), None)
        if found is None:
            there = ", ".join(self.splits) or "none"
            raise DataError(f"{self.name} has no text for {split}; its splits: {there}. Add a file {split}.txt.")
        return found


def open_streams(spec: str, val_share: float = 0.1) -> TextStreams:
    """Open a text for language modelling.

    Args:
        spec: a text file, whose end is held out for validation; or a folder with `train.txt`, `valid.txt`, `test.txt`
            (also names with other words around the split, as `wiki.train.tokens`).
        val_share: share of the training text that is held out if there is no validation text: its last part, since
            a language model that has read the lines around a held-out line has seen much of it.

    Raises:
        VitrailError: there is no such file.
        DataError: it is empty, or not UTF-8.
    """
    path, files = Path(spec).expanduser(), dict[Any, Path]()
    if path.is_dir():
        name, files = printable(path.name), _split_files(path)
    else:
        name, files = printable(path.stem), {SPLIT_NAMES.get(path.stem.lower(), "train"): path}
    texts: dict[Any, str] = {split: read_text(file) for split in SPLITS if (file := files.get(split)) is not None}
    empty = [split for split, text in texts.items() if not text.strip()]
    if empty:
        raise DataError(f"{printable(files[empty[0]])} is empty; a language model needs a text.")
    if "train" in texts and "val" not in texts and val_share:
        whole = texts["train"]
        cut = int(len(whole) * (1 - val_share))
        texts |= {"train": whole[:cut], "val": whole[cut:]}
    return TextStreams(name, {split: TextStream(f"{name} {split}", texts[split]) for split in SPLITS if split in texts})


def _split_files(folder: Path) -> dict[Split, Path]:
    """Return the file of each split: one whose name has the word of the split."""
    found: dict[Any, Path] = {}
    for file in sorted(folder.iterdir()):
        words = file.name.lower().replace("-", ".").replace("_", ".").split(".")
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        if split is None or not file.is_file() or file.suffix not in SUFFIXES:
            continue
        if split in found:
            raise DataError(f"{printable(folder)} has two texts for {split}: {found[split].name}, {file.name}.")
        found[split] = file
    if not found:
        raise VitrailError(f"{printable(folder)} has no text of a split: train.txt, valid.txt or test.txt is needed.")
    return found
