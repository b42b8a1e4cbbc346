"""PyTorch's fused attention, which picks among its own kernels.

In bfloat16 on a CPU its kernel unpacks to fp32: over 16 to 1,025 keys the plain products of the reference train 1.4 to
8 times as fast and infer up to 4 times (docs/log.md: 2 cores with AVX-512 bf16), so it steps aside there. Over more
keys the map that the products store would cost more memory than the time is worth.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

PLAIN_KEYS = 1024


def unsupported_reason(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    """Return why PyTorch's fused attention cannot take these tensors."""
    if not q.is_floating_point():
        return f"needs floating point, got {q.dtype}"
    if not q.dtype == k.dtype == v.dtype:
        return f"needs one dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= PLAIN_KEYS:
        return f"slower than plain products on a CPU in bfloat16 over at most {PLAIN_KEYS} keys"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Compute softmax attention; a bias of another dtype (autocast leaves tables in fp32) follows the queries."""
    bias = None if bias is None else bias.to(q.dtype)
    if torch.compiler.is_exporting():
        return _exported(q, k, v, bias)
    return scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _exported(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Compute it over one axis of batches, with a contiguous result, in a program that is exported.

    The attention of other runtimes has four axes, and its result another layout in memory than PyTorch's.
    """
    batch = q.shape[:-3]
    if len(batch) > 1:
        bias = None if bias is None else bias.expand(*q.shape[:-1], k.shape[-2]).flatten(0, -4)
        q, k, v = q.flatten(0, -4), k.flatten(0, -4), v.flatten(0, -4)
    y = scaled_dot_product_attention(q, k, v, attn_mask=bias).contiguous()
    return y.unflatten(0, batch) if len(batch) > 1 else y
