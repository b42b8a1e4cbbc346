"""Result of checking a data set sample by sample."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SampleCheck:
    """Faults of a data set, and its sizes.

    Args:
        bad: samples that cannot be used, with the reason.
        warnings: sentences about the data.
        counts: sizes, such as the samples of each split.

    Example:
        >>> SampleCheck(("a.off: empty",), counts=("train: 3 clouds",)).to_dict()
        {'bad': ['a.off: empty'], 'warnings': [], 'counts': ['train: 3 clouds']}
    """

    bad: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return the sizes."""
        return self.counts

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"bad": [str(one) for one in self.bad], "warnings": list(self.warnings), "counts": list(self.counts)}
