"""One side of a key map's rule: a key with placeholders.

| placeholder | matches |
|---|---|
| `{i}` | a number; the same letter is the same number on both sides |
| `{s+1}`, `{2s+1}` | a number with an offset or factor; `{i+1:02}` is written with two digits |
| `{weight\\|bias}` | one of these words; on the other side the word at the same position |
| `{*}` | any text |
| `(vit.)` | text that is optional when read, and always written |
"""

import re
from typing import NamedTuple

Binding = tuple[tuple[str, int | str], ...]

_PLACE = re.compile(r"\{([^}]*)\}|\(([^)]*)\)")
_NUMBER = re.compile(r"(?P<times>\d*)(?P<name>[a-z])(?P<plus>[+-]\d+)?(:0(?P<width>\d))?")


class Number(NamedTuple):
    """Placeholder for `times * name + plus`, with at least `width` digits."""

    name: str
    times: int = 1
    plus: int = 0
    width: int = 1

    def read(self, text: str) -> int | None:
        """Return the value of `name` for this text, or None."""
        value, rest = divmod(int(text) - self.plus, self.times)
        return value if rest == 0 and value >= 0 and self.write(value) == text else None

    def write(self, value: int | str) -> str:
        """Return the text for a value of `name`."""
        return f"{self.times * int(value) + self.plus:0{self.width}}"


class WordChoice(NamedTuple):
    """Placeholder for one of several words."""

    name: str
    words: tuple[str, ...]

    def read(self, text: str) -> int:
        """Return the position of the word."""
        return self.words.index(text)

    def write(self, value: int | str) -> str:
        """Return the word at a position."""
        return self.words[int(value)]


class Anything(NamedTuple):
    """Placeholder for any text."""

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
        self.parts: list[str | Number | WordChoice | Anything] = []
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
        """Add a placeholder, and return the regular expression for its text."""
        if inside == "*":
            self.parts.append(Anything())
            return "(.+)"
        if "|" in inside:
            count = sum(isinstance(part, WordChoice) for part in self.parts)
            self.parts.append(WordChoice(f"|{count}", tuple(inside.split("|"))))
            return f"({'|'.join(re.escape(word) for word in inside.split('|'))})"
        number = _NUMBER.fullmatch(inside)
        assert number, f"{self.text}: {{{inside}}} is no place"
        times, plus, width = int(number["times"] or 1), int(number["plus"] or 0), int(number["width"] or 1)
        self.parts.append(Number(number["name"], times, plus, width))
        return r"(\d+)"

    @property
    def places(self) -> list[Number | WordChoice | Anything]:
        """The placeholders, from left to right."""
        return [part for part in self.parts if not isinstance(part, str)]

    def match(self, key: str) -> Binding | None:
        """Return the value of each placeholder in `key`, or None if the key does not match."""
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
        """Return the key with the placeholders replaced by their values."""
        values = dict(binding)
        return "".join(part if isinstance(part, str) else part.write(values[part.name]) for part in self.parts)
