"""Sentence pairs: the same text in two languages, line by line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from vitrail.errors import DataError, VitrailError, nearest

UNNAMED = ("1", "2")
"""Names of the columns of a table without a header: source, then target."""


@dataclass(frozen=True)
class SentencePairs:
    """Sentences and their translations.

    Args:
        name: data set and split, for display.
        ids: name of each pair, such as `train:17` (file and line).
        sources: sentences.
        targets: their translations.
    """

    name: str
    ids: Sequence[str] = field(repr=False)
    sources: Sequence[str] = field(repr=False)
    targets: Sequence[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ParallelText:
    """Lines of the same text in several languages; `pairs` takes two of them.

    Args:
        name: data set and split, for display.
        ids: name of each line.
        lines: lines by language, all of one length. A table without a header has the languages `1` and `2`.
        bad: treatment of pairs with an empty side: `fail` or `skip`.

    Example:
        >>> text = ParallelText("toy train", ["0"], {"en": ["A dog."], "de": ["Ein Hund."]})
        >>> text.pairs("en", "de").targets
        ('Ein Hund.',)
    """

    name: str
    ids: Sequence[str] = field(repr=False)
    lines: Mapping[str, Sequence[str]] = field(repr=False)
    bad: str = "fail"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Estimated number of tokens of a language, 4 characters each."""
        return max(sum(map(len, lines)) // 4 for lines in self.lines.values()) if len(self) else 0

    @property
    def languages(self) -> tuple[str, ...]:
        """Names of the languages."""
        return tuple(self.lines)

    def direction(self, source: str | None, target: str | None) -> tuple[str, str]:
        """Return the languages to translate between: those given, or the columns of a table without names.

        Raises:
            VitrailError: a language is missing, or not given.
        """
        if self.languages == UNNAMED and source not in UNNAMED:
            return UNNAMED
        there = ", ".join(self.languages)
        for flag, language in (("--source", source), ("--target", target)):
            if language is None:
                example = (*self.languages, *UNNAMED)[:2]
                raise VitrailError(
                    f"{self.name} has the languages {there}: {flag} is needed.\n"
                    f"Example: --source {example[0]} --target {example[1]}"
                )
            if language not in self.lines:
                near = nearest(language, self.languages)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise VitrailError(f"{self.name} has no language {language}; it has {there}.{hint}")
        if source == target:
            raise VitrailError(f"--source and --target are both {source}; two languages are needed.")
        return str(source), str(target)

    def pairs(self, source: str | None, target: str | None) -> SentencePairs:
        """Return the pairs of two languages.

        Raises:
            VitrailError: a language is missing.
            DataError: a sentence is empty (with `skip`: all are), or the languages differ in their number of lines.
        """
        languages = self.direction(source, target)
        first, second = (self.lines[language] for language in languages)
        if len(first) != len(second):
            raise DataError(
                f"{self.name} has {len(first):,} lines of {languages[0]} and {len(second):,} of {languages[1]}.\n"
                "Line i of one must be the translation of line i of the other; see where they part."
            )
        full = [number for number, pair in enumerate(zip(first, second, strict=True)) if all(map(str.strip, pair))]
        if (len(full) < len(first) and self.bad == "fail") or not full:
            empty = sorted(set(range(len(first))) - set(full))
            names = ", ".join(self.ids[number] for number in empty[:3])
            raise DataError(
                f"{len(empty):,} of {len(first):,} pairs of {self.name} have an empty side: {names or 'no line at all'}"
                f"{', ...' if len(empty) > 3 else ''}.\nRemove them, or leave them out with --bad skip."
            )
        ids, sources, targets = (tuple(each[number] for number in full) for each in (self.ids, first, second))
        return SentencePairs(self.name, ids, sources, targets)

    def take(self, numbers: Sequence[int], name: str) -> "ParallelText":
        """Return some of the lines under another name."""
        lines = {language: [each[number] for number in numbers] for language, each in self.lines.items()}
        return ParallelText(name, [self.ids[number] for number in numbers], lines, self.bad)


@dataclass
class ParallelSplits:
    """A parallel text by split.

    Args:
        name: the data set, for display.
        train: training lines.
        val: validation lines.
        test: test lines; of several test sets the first.
        tests: the test sets by name.
    """

    name: str
    train: ParallelText | None = None
    val: ParallelText | None = None
    test: ParallelText | None = None
    tests: dict[str, ParallelText] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, ParallelText]]:
        """Iterate over the splits that exist."""
        for split in ("train", "val", "test"):
            lines = getattr(self, split)
            if lines is not None:
                yield split, lines

    def require(self, split: str) -> ParallelText:
        """Return a split, or a test set by its name; the error names the existing ones."""
        found = {**dict(self), **self.tests}.get(split)
        if found is None:
            there = ", ".join({**dict(self), **self.tests}) or "none"
            how = " To hold out a share of train, set --val-share above 0." if split == "val" else ""
            raise DataError(f"{self.name} has no lines for {split}; it has: {there}.{how}")
        return found


def hold_out_lines(text: ParallelText, share: float, purpose: str) -> tuple[ParallelText, ParallelText]:
    """Hold out a share of a parallel text: those whose line has the least hash, so equal lines stay together.

    Args:
        text: the lines.
        share: share to hold out, in (0, 1); at least one line is held out, and one is left.
        purpose: name of the new split; it salts the hash.

    Raises:
        VitrailError: the share is impossible, or there are fewer than two different lines.
    """
    if not 0 < share < 1:
        raise VitrailError(f"A share of {share} cannot be held out for {purpose}; use more than 0 and less than 1.")
    lines = next(iter(text.lines.values()))
    different = sorted(set(lines), key=lambda line: _hash(purpose, line))
    if len(different) < 2:
        raise VitrailError(f"{text.name} has fewer than two different lines, so none can be held out for {purpose}.")
    held = set(different[: min(max(round(share * len(different)), 1), len(different) - 1)])
    left = [number for number, line in enumerate(lines) if line not in held]
    out = [number for number, line in enumerate(lines) if line in held]
    return text.take(left, text.name), text.take(out, f"{text.name.rpartition(' ')[0]} {purpose}")


def _hash(purpose: str, line: str) -> bytes:
    return blake2b(f"{purpose}\0{line}".encode("utf-8", "backslashreplace"), digest_size=16).digest()
