"""Native backward pass of neighborhood attention, without saved attention weights.

Scores and softmax probabilities are recomputed from queries and keys. Threads are parallel over heads and images;
gradients of bias and padding are reduced in the same order for any number of threads.
"""

import torch
from torch import Tensor

from vitrail.native.allocator import fp32
from vitrail.native.ffi import at, call
from vitrail.native.neighborhood import Meeting, operands, readable
from vitrail.shapes import HeadMap


def attend_neighbors_backward(
    q: HeadMap,
    k: HeadMap,
    v: HeadMap,
    bias: Tensor,
    meeting: Meeting,
    grad_y: Tensor,
    padding: Tensor | None = None,
    table_rows: int = 0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of `attend_neighbors`.

    Args:
        q: queries; this and the next four are the arguments of the forward pass.
        k: keys.
        v: values.
        bias: from `run_bias`.
        meeting: tiling of this map.
        grad_y: gradient of the output.
        padding: `(2, h, d)`, key and value of padding, if the tiling has padding.
        table_rows: rows of the bias table, `(2 k - 1)^2`, or 0 if its gradient is not required.

    Returns:
        Gradients of queries, keys and values in one, `(B, H, W, 3, h, d)`, of the bias table, and of padding; the last
        two in fp32.
    """
    batch, height, width, heads, d = q.shape
    q, k, v = (readable(x) for x in (q, k, v))
    grad_y = grad_y.to(q.dtype).contiguous()
    grad_qkv = q.new_empty(batch, height, width, 3, heads, d)
    grad_table = fp32(table_rows, heads) if table_rows else None
    grad_padding = None if padding is None else fp32(2, heads, d)
    call(
        *("neighborhood_gradient", "neighborhood_backward", q.dtype),
        operands=operands(q, k, v, bias, meeting, padding),
        side=meeting.side,
        offsets=at(meeting.offsets),
        rows=table_rows,
        dy=at(grad_y),
        dqkv=at(grad_qkv),
        dtable=at(grad_table),
        dpadding=at(grad_padding),
        threads=torch.get_num_threads(),
    )
    return grad_qkv, grad_table, grad_padding
