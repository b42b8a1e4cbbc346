"""Arguments of fused residual branches `x + drop_scale * f(norm(x))`, f an attention or an MLP.

As one autograd function, a branch saves fewer activations than its parts would.
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
    """A LayerNorm over channels: weight and bias `(C,)`, and the eps added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


class LinearWeights(NamedTuple):
    """A linear layer: weights `(out, in)`, bias `(out,)`."""

    weight: Tensor
    bias: Tensor


class AttentionGroups(NamedTuple):
    """Groups of tokens that attend to each other, as in `kernels/window`.

    Args:
        heads: number of heads h.
        bias: addends to the scores, `(K, h or 1, n, n)`, or None.
        mask_index: integers `(G,)`, the index of the bias of each group.
        token_index: integers `(G, n)`, the tokens of each group; -1 is padding.
    """

    heads: int
    bias: Tensor | None
    mask_index: Tensor
    token_index: Tensor


class NeighborhoodSpec(NamedTuple):
    """Neighborhoods of the cells of a map, as in `kernels/neighborhood`.

    Args:
        heads: number of heads h.
        table: the bias for each offset, `((2 k - 1)^2, h)`.
        grid: layout of the cells, without a prefix.
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
    """Normalise by PyTorch."""
    return layer_norm(x, norm.weight.shape, *norm)


def residual_add(x: Tokens, branch: Tokens, drop_scale: Tensor | None) -> Tensor:
    """Add a branch, scaled for each sample if there is a `drop_scale`."""
    return x + (branch if drop_scale is None else branch * drop_scale.to(branch.dtype)[:, None, None])


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of GEMMs: that of autocast, or else of their input."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def branch_unsupported_reason(x: Tensor, *weights: Tensor) -> str | None:
    """Return why native code cannot compute a branch of these tensors, or None."""
    if is_tracing(x, *weights):
        return "not traceable: torch.compile, export or a functorch transform is active"
    if any(tensor.device.type != "cpu" for tensor in (x, *weights)):
        return f"needs a CPU, got {x.device.type}"
    dtype = compute_dtype(x)
    if x.dtype not in (dtype, torch.float32):
        return f"needs a residual in {dtype} or fp32, got {x.dtype}"
    if not torch.is_autocast_enabled("cpu") and any(weight.dtype != dtype for weight in weights):
        return f"needs weights of the precision of their input without autocast, got {x.dtype} for it"
    if dtype == torch.bfloat16 and any(size % 2 for weight in weights for size in weight.shape):
        return "bf16 needs even widths of all layers"
    return refusal(dtype, *LIBRARIES)


def as_fp32(*weights: Tensor) -> list[Tensor]:
    """Return small weights as compiled code reads them."""
    return [weight.detach().float().contiguous() for weight in weights]


def in_dtypes(gradients: tuple[Tensor | None, ...], dtypes: list[torch.dtype]) -> list[Tensor | None]:
    """Give each gradient the precision of its weight."""
    return [None if into is None else into.to(dtype) for into, dtype in zip(gradients, dtypes, strict=True)]
