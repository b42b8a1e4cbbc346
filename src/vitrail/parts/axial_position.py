"""Positions of long sequences as pairs: a learned row and a learned column."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.shapes import Tokens


class AxialPosition(nn.Module):
    """Learned positions of an `(R, S)` grid that the text fills row by row, added to the tokens.

    p_t = [row_(t div S), column_(t mod S)], which takes R d_1 + S d_2 weights in place of R S (d_1 + d_2)

    The code of "Reformer" (trax; not in the paper). There a training text must fill the grid; here any length up to
    R S is taken.

    Args:
        shape: rows R and columns S; R S is the largest length.
        dims: channels d_1 and d_2, which add up to C.

    Raises:
        VitrailError: (in `forward`) if a sequence is longer than the grid.

    Example:
        >>> x, _ = AxialPosition((2, 3), (4, 4))(torch.zeros(1, 6, 8), TokenSequence(6))
        >>> bool((x[0, 0, :4] == x[0, 2, :4]).all()), bool((x[0, 0, 4:] == x[0, 3, 4:]).all())
        (True, True)
    """

    def __init__(self, shape: Sequence[int], dims: Sequence[int]):
        super().__init__()
        self.rows = nn.Parameter(torch.empty(shape[0], dims[0]))
        self.columns = nn.Parameter(torch.empty(shape[1], dims[1]))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Add each token's position."""
        places, width = layout.start + torch.arange(x.shape[1], device=x.device), len(self.columns)
        capacity = len(self.rows) * width
        if layout.start + x.shape[1] > capacity:
            raise VitrailError(
                f"The input has {layout.start + x.shape[1]} tokens, and this model has positions for {capacity}. "
                "Truncate the input."
            )
        rows, columns = self.rows[places // width], self.columns[places % width]
        return x + torch.cat([rows, columns], dim=-1), layout
