"""LayerNorm over channels for CPU inference, where no GEMM follows that it could be folded into."""

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, function
from vitrail.native.norms import LaneNorm, norm_operands


def layer_norm(x: Tensor, norm: LaneNorm, dtype: torch.dtype | None = None) -> Tensor:
    """Normalise each row of `(*, C)`.

    Args:
        x: rows, in the residual dtype.
        norm: scale, shift and epsilon.
        dtype: output dtype: the residual dtype (default) or the compute dtype.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=dtype or x.dtype)
    function("layer_norm", "layer_norm", x.dtype, y.dtype)(
        at(x), x.numel() // x.shape[-1], x.shape[-1], *norm_operands(norm), at(y), torch.get_num_threads()
    )
    return y
