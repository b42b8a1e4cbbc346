"""Search space of a sweep: fields of the config with ranges or choices, as text."""

from dataclasses import fields
from typing import Any, NamedTuple

from vitrail.errors import VitrailError, unknown
from vitrail.training.config import config_class
from vitrail.training.config_io import typed


class SearchRange(NamedTuple):
    """Values of a field that a sweep tries.

    Args:
        name: the field.
        choices: values to choose from; empty for a range.
        low: least value of a range.
        high: largest value.
        log: whether the logarithm is drawn evenly.
        whole: whether the values are whole numbers.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Any) -> Any:
        """Return a value that optuna suggests."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def parse_space(task: str, texts: tuple[str, ...]) -> list[SearchRange]:
    """Read `name=low:high`, `name=low:high:log` and `name=a,b,c`.

    Raises:
        VitrailError: a field does not exist, or a text is no range.

    Example:
        >>> parse_space("classify", ("lr=1e-4:1e-2:log", "optimizer=adamw,muon"))[0].high
        0.01
    """
    if not texts:
        raise VitrailError("A sweep needs a search space: --space lr=1e-4:1e-2:log optimizer=adamw,muon")
    found = [_parse(task, text) for text in texts]
    twice = {one.name for one in found if [other.name for other in found].count(one.name) > 1}
    if twice:
        raise VitrailError(f"--space names {sorted(twice)[0]} twice.")
    return found


def _parse(task: str, text: str) -> SearchRange:
    name, sign, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    names = [each.name for each in fields(config_class(task))]
    if name not in names:
        raise unknown("field of --space", name, names)
    if not sign or not values:
        raise VitrailError(f"--space {text} has no values. Write {name}=low:high, low:high:log, or {name}=a,b,c.")
    if ":" not in values:
        choices = tuple(value.strip() for value in values.split(","))
        for value in choices:
            typed(config_class(task), {name: value})
        return SearchRange(name, choices)
    low, high, *rest = values.split(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = 1.0, 0.0
    if bounds[0] >= bounds[1] or rest not in ([], ["log"]) or (rest and bounds[0] <= 0):
        raise VitrailError(f"--space {text} is no range. Write {name}=low:high, with :log for positive numbers.")
    whole = all(part.lstrip("-").isdigit() for part in (low, high))
    return SearchRange(name, (), *bounds, log=bool(rest), whole=whole)
