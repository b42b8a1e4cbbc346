"""What a branch is made of, besides its input."""

from typing import NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """A LayerNorm over channels: scale, shift `(C,)`, and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


class Linear(NamedTuple):
    """A linear layer: weights `(out, in)`, bias `(out,)`."""

    weight: Tensor
    bias: Tensor


class Meeting(NamedTuple):
    """Who attends to whom, as in `kernels/window`.

    Args:
        heads: number of heads h.
        bias: addends to the scores, `(K, h or 1, n, n)`, or None.
        kinds: integers `(G,)`, which addends a group has.
        slots: integers `(G, n)`, which token sits in each place of each group; -1 is padding.
    """

    heads: int
    bias: Tensor | None
    kinds: Tensor
    slots: Tensor
