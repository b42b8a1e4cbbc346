"""What the branches of a block have in common: `x + drop_scale * f(norm(x))`, with f an attention or an MLP.

What lies between the steps of a branch need not all be stored for its gradient when the branch is one operation.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from vitrail.grid import Grid
from vitrail.kernels.tracing import is_tracing
from vitrail.native.build import refusal
from vitrail.shapes import Tokens

LIBRARIES = ("fused_train", "window_gradient")


class NormWeights(NamedTuple):
    """A LayerNorm over channels: scale, shift `(C,)`, and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


class LinearWeights(NamedTuple):
    """A linear layer: weights `(out, in)`, bias `(out,)`."""

    weight: Tensor
    bias: Tensor


class AttentionGroups(NamedTuple):
    """Who attends to whom, as in `kernels/window`.

    Args:
        heads: number of heads h.
        bias: addends to the scores, `(K, h or 1, n, n)`, or None.
        mask_index: integers `(G,)`, which addends a group has.
        token_index: integers `(G, n)`, which token sits in each place of each group; -1 is padding.
    """

    heads: int
    bias: Tensor | None
    mask_index: Tensor
    token_index: Tensor


class NeighborhoodSpec(NamedTuple):
    """Who attends to whom, as in `kernels/neighborhood`.

    Args:
        heads: number of heads h.
        table: the bias for each offset, `((2 k - 1)^2, h)`.
        grid: where the cells sit, without a prefix.
        kernel_size: odd side k of a neighborhood, in cells.
        dilation: step between two neighbours, in cells.

    Example:
        >>> NeighborhoodSpec(2, torch.zeros(25, 2), Grid(5, 9), kernel_size=3, dilation=2).short
        (1, 0)
    """

    heads: int
    table: Tensor
    grid: Grid
    kernel_size: int
    dilation: int

    @property
    def short(self) -> tuple[int, int]:
        """Return how many rows and columns the map lacks to hold a neighborhood; they are padding."""
        least = self.kernel_size * self.dilation
        return max(least - self.grid.h, 0), max(least - self.grid.w, 0)


def normed(x: Tokens, norm: NormWeights) -> Tensor:
    """Normalise as PyTorch does."""
    return layer_norm(x, norm.weight.shape, *norm)


def residual_add(x: Tokens, branch: Tokens, drop_scale: Tensor | None) -> Tensor:
    """Add a branch, times a factor for each sample where there is one."""
    return x + (branch if drop_scale is None else branch * drop_scale.to(branch.dtype)[:, None, None])


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of products: autocast's, or else that of their input."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def branch_unsupported_reason(x: Tensor, *weights: Tensor) -> str | None:
    """Say why compiled code cannot compute a branch of these tensors."""
    if is_tracing(x, *weights):
        return "is not to be seen by those who trace operations"
    if any(tensor.device.type != "cpu" for tensor in (x, *weights)):
        return f"needs a CPU, got {x.device.type}"
    dtype = compute_dtype(x)
    if x.dtype not in (dtype, torch.float32):
        return f"needs a residual in {dtype} or fp32, got {x.dtype}"
    if not torch.is_autocast_enabled("cpu") and any(weight.dtype != dtype for weight in weights):
        return f"needs weights of the precision of their input without autocast, got {x.dtype} for it"
    if dtype == torch.bfloat16 and any(size % 2 for weight in weights for size in weight.shape):
        return "layers of an odd width cannot be read in pairs"
    return refusal(dtype, *LIBRARIES)


def as_fp32(*weights: Tensor) -> list[Tensor]:
    """Return small weights as compiled code reads them."""
    return [weight.detach().float().contiguous() for weight in weights]


def in_dtypes(gradients: tuple[Tensor | None, ...], dtypes: list[torch.dtype]) -> list[Tensor | None]:
    """Give each gradient the precision of its weight."""
    return [None if into is None else into.to(dtype) for into, dtype in zip(gradients, dtypes, strict=True)]
