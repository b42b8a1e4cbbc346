"""PyTorch's fused attention, which picks among its own kernels."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def refuses(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    """Say why PyTorch's fused attention cannot take these tensors."""
    if not q.is_floating_point():
        return f"needs floating point, got {q.dtype}"
    if not q.dtype == k.dtype == v.dtype:
        return f"needs one dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Compute softmax attention; a bias of another dtype (autocast leaves tables in fp32) follows the queries."""
    return scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
