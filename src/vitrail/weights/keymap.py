"""A small language for key maps: `their pattern <-> our pattern`, read in either direction.

A pattern is a key with places in it:

| place | stands for |
|---|---|
| `{i}` | a number; the same letter is the same number on both sides |
| `{s+1}`, `{2s+1}` | a number counted otherwise; `{i+1:02}` is written with two digits |
| `{weight\\|bias}` | one of these words; on the other side the word at the same position |
| `{*}` | any text |
| `(vit.)` | text that may be missing when read, and is always written |

A format is a list of rules, and both converters follow from it: nothing is written twice, so nothing can disagree.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from torch import Tensor

from vitrail.weights.operations import SAME, Operation

Binding = tuple[tuple[str, int | str], ...]

_PLACE = re.compile(r"\{([^}]*)\}|\(([^)]*)\)")
_NUMBER = re.compile(r"(?P<times>\d*)(?P<name>[a-z])(?P<plus>[+-]\d+)?(:0(?P<width>\d))?")


class Number(NamedTuple):
    """A place for `times * name + plus`, with at least `width` digits."""

    name: str
    times: int = 1
    plus: int = 0
    width: int = 1

    def read(self, text: str) -> int | None:
        """Return the number that `name` must be for this text, or None."""
        value, rest = divmod(int(text) - self.plus, self.times)
        return value if rest == 0 and value >= 0 and self.write(value) == text else None

    def write(self, value: int | str) -> str:
        """Return the text for a value of `name`."""
        return f"{self.times * int(value) + self.plus:0{self.width}}"


class Choice(NamedTuple):
    """A place for one of some words."""

    name: str
    words: tuple[str, ...]

    def read(self, text: str) -> int:
        """Return the position of the word."""
        return self.words.index(text)

    def write(self, value: int | str) -> str:
        """Return the word at a position."""
        return self.words[int(value)]


class Anything(NamedTuple):
    """A place for any text."""

    name: str = "*"

    def read(self, text: str) -> str:
        """Return the text."""
        return text

    def write(self, value: int | str) -> str:
        """Return the text."""
        return str(value)


class Pattern:
    """One side of a rule.

    Example:
        >>> theirs, ours = Pattern("layers.{s}.{scale|bias}"), Pattern("stages.{s+1}.{weight|bias}")
        >>> ours.fill(theirs.match("layers.2.scale"))
        'stages.3.weight'
        >>> theirs.fill(ours.match("stages.0.bias")) if ours.match("stages.0.bias") else "no such stage of theirs"
        'no such stage of theirs'
    """

    def __init__(self, text: str):
        self.text = text
        self.parts: list[str | Number | Choice | Anything] = []
        expression, end = "", 0
        for place in _PLACE.finditer(text):
            literal = text[end : place.start()]
            end = place.end()
            self.parts.append(literal)
            expression += re.escape(literal)
            if place[2] is not None:
                self.parts.append(place[2])
                expression += f"(?:{re.escape(place[2])})?"
            else:
                expression += self._add(place[1])
        self.parts.append(text[end:])
        self.expression = re.compile(expression + re.escape(text[end:]))

    def _add(self, inside: str) -> str:
        """Add a place, and return the expression that finds its text."""
        if inside == "*":
            self.parts.append(Anything())
            return "(.+)"
        if "|" in inside:
            count = sum(isinstance(part, Choice) for part in self.parts)
            self.parts.append(Choice(f"|{count}", tuple(inside.split("|"))))
            return f"({'|'.join(re.escape(word) for word in inside.split('|'))})"
        number = _NUMBER.fullmatch(inside)
        assert number, f"{self.text}: {{{inside}}} is no place"
        times, plus, width = int(number["times"] or 1), int(number["plus"] or 0), int(number["width"] or 1)
        self.parts.append(Number(number["name"], times, plus, width))
        return r"(\d+)"

    @property
    def places(self) -> list[Number | Choice | Anything]:
        """The places, from left to right."""
        return [part for part in self.parts if not isinstance(part, str)]

    def match(self, key: str) -> Binding | None:
        """Return what each place stands for in `key`, or None where the key does not fit."""
        found = self.expression.fullmatch(key)
        if found is None:
            return None
        values: dict[str, int | str] = {}
        for place, text in zip(self.places, found.groups(), strict=True):
            value = place.read(text)
            if value is None or values.setdefault(place.name, value) != value:
                return None
        return tuple(sorted(values.items()))

    def fill(self, binding: Binding) -> str:
        """Return the key in which each place holds what it stands for."""
        values = dict(binding)
        return "".join(part if isinstance(part, str) else part.write(values[part.name]) for part in self.parts)


_compiled = cache(Pattern)


@dataclass(frozen=True)
class Rule:
    """Their key or keys, our key or keys, and what happens to the tensors in between.

    Args:
        theirs: pattern, or several when one of our tensors is made of several of theirs.
        ours: pattern, or several; none where we do not store what they store.
        operation: what turns theirs into ours and back.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    operation: Operation = SAME

    @cached_property
    def patterns(self) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
        """Both sides, compiled: theirs, ours."""
        sides = (self.theirs, self.ours)
        theirs, ours = (tuple(map(_compiled, (side,) if isinstance(side, str) else side)) for side in sides)
        return theirs, ours


@dataclass(frozen=True)
class Format:
    """How one library names the weights of one architecture.

    Args:
        name: the library: `timm`, `torchvision`, `huggingface`, `official`...
        families: the architectures of ours that it describes.
        rules: what becomes what.
        marks: patterns that must each fit some key of a checkpoint in this format.
        writes: whether `convert --to` writes it; False for names that a library no longer, or not yet, keeps in files.
    """

    name: str
    families: tuple[str, ...]
    rules: tuple[Rule, ...]
    marks: tuple[str, ...]
    writes: bool = True

    def marked(self, keys: Iterable[str]) -> bool:
        """Say whether a checkpoint with these keys can be in this format."""
        keys = list(keys)
        return all(any(_compiled(mark).match(key) is not None for key in keys) for mark in self.marks)

    def read(self, theirs: Mapping[str, Tensor]) -> "Mapped":
        """Turn their tensors into ours."""
        return _apply(self.rules, theirs, 0, None)

    def write(self, ours: Mapping[str, Tensor], config: Any) -> "Mapped":
        """Turn our tensors into theirs; `config` tells what the shapes alone do not, such as the number of heads."""
        return _apply(self.rules, ours, 1, config)


@dataclass
class Mapped:
    """Tensors under their new names, and what did not get through.

    Args:
        tensors: by new key.
        unexpected: source keys that no rule knows.
        incomplete: source keys that a rule needs beside others and did not find.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def _apply(rules: Iterable[Rule], tensors: Mapping[str, Tensor], side: int, config: Any) -> Mapped:
    """Gather the keys that each rule needs, then run its operation. `side` is where the tensors come from."""
    result = Mapped()
    rules = tuple(rules)
    groups: dict[tuple[int, Binding], dict[int, str]] = {}
    for key in tensors:
        known = False
        for number, rule in enumerate(rules):
            for slot, pattern in enumerate(rule.patterns[side]):
                binding = pattern.match(key)
                if binding is not None:
                    groups.setdefault((number, binding), {})[slot] = key
                    known = True
        if not known:
            result.unexpected.append(key)
    for (number, binding), found in groups.items():
        _convert(rules[number], binding, found, tensors, side, config, result)
    return result


def _convert(
    rule: Rule, binding: Binding, found: dict, tensors: Mapping, side: int, config: Any, result: Mapped
) -> None:
    """Run one rule for one binding of its places."""
    sources, targets = rule.patterns[side], rule.patterns[1 - side]
    absent = [pattern.fill(binding) for slot, pattern in enumerate(sources) if slot not in found]
    if absent:
        result.incomplete += absent
        return
    parts = [tensors[found[slot]] for slot in range(len(sources))]
    made = rule.operation.read(*parts) if side == 0 else rule.operation.write(*parts, config=config)
    if made and len(made) != len(targets):  # one prefix token cannot be cut into class and distillation token
        result.incomplete += found.values()
        return
    for pattern, tensor in zip(targets, made, strict=False):
        result.tensors[pattern.fill(binding)] = tensor
