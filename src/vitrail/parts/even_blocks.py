"""A map cut into as many blocks at every size, rather than into blocks of one size."""

from dataclasses import dataclass

from vitrail.grid import Grid
from vitrail.parts.window_partition import MaskedPadding, PadThenRoll


@dataclass(frozen=True)
class EvenBlocks(MaskedPadding):
    """Cut a map into `b x b` blocks, each as large as the map needs; no token attends to padding.

    "Nested Hierarchical Transformer", section 3: at each level of the hierarchy four blocks become one, so their number
    is a matter of the level and their size one of the image. A map that `b` does not divide is padded.

    Example:
        >>> EvenBlocks.of(Grid(56, 9), window=4, shift=0).window
        (14, 3)
    """

    @classmethod
    def of(cls, grid: Grid, window: int, shift: int) -> PadThenRoll:
        """Choose the cut of one grid into `window x window` blocks; `shift` is not used."""
        size = (grid.h, grid.w)
        rows, columns = (-(-n // window) for n in size)
        return cls(size, (rows, columns), (0, 0))
