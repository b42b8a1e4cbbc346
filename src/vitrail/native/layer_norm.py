"""LayerNorm and RMSNorm over channels for CPU inference, where no GEMM follows that it could be folded into."""

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, call
from vitrail.native.norms import LaneNorm, norm_args


def layer_norm(x: Tensor, norm: LaneNorm, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise each row of `(*, C)`.

    Args:
        x: rows, in the residual dtype.
        norm: scale, shift and epsilon.
        dtype: output dtype: the residual dtype (default) or the compute dtype.
    """
    return _normalised("layer_norm", x, norm, dtype)


def rms_norm(x: Tensor, norm: LaneNorm, dtype: torch.dtype | None = None) -> Tensor:
    """Divide each row of `(*, C)` by its root mean square; the arguments are those of `layer_norm`."""
    return _normalised("rms_norm", x, norm, dtype)


def _normalised(name: str, x: Tensor, norm: LaneNorm, dtype: torch.dtype | None) -> Tensor:
    x = x.contiguous()
    y = empty(*x.shape, dtype=dtype or x.dtype)
    call(
        *("layer_norm", name, x.dtype, y.dtype),
        x=at(x),
        rows=x.numel() // x.shape[-1],
        depth=x.shape[-1],
        norm=norm_args(norm),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
