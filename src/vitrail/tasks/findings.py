"""Result of checking a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Findings:
    """Faults of a data set; the `DataCheck` of most tasks.

    Args:
        bad: samples that cannot be used, each with its reason as `str`.
        warnings: problems that do not prevent training.
        counts: sizes as lines of text, such as the samples of each split.

    Example:
        >>> Findings(("a.png: truncated",)).to_dict()
        {'bad': ['a.png: truncated'], 'warnings': [], 'counts': []}
    """

    bad: Sequence[object] = ()
    warnings: Sequence[str] = ()
    counts: Sequence[str] = ()

    def lines(self) -> Sequence[str]:
        """Return the sizes."""
        return self.counts

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"bad": [str(one) for one in self.bad], "warnings": list(self.warnings), "counts": list(self.counts)}
