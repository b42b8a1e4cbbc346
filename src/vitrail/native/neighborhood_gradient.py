"""The gradient of attention of each cell to those around it, compiled; no attention map is kept for it.

Scores and shares are computed anew from queries and keys. Each head of each picture is the work of one thread, and what
they share, the bias and padding, is added up in the same order on any number of threads.
"""

import torch
from torch import Tensor

from vitrail.native.allocator import fp32
from vitrail.native.ffi import at, function
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
        q: queries; this and the next four as it was given them.
        k: keys.
        v: values.
        bias: from `run_bias`.
        meeting: of this map.
        grad_y: the gradient of the answer.
        padding: `(2, h, d)`, key and value of padding, where the meeting has some.
        table_rows: rows of the bias table, `(2 k - 1)^2`, or 0 if its gradient is not wanted.

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
    function("neighborhood_gradient", "neighborhood_backward", q.dtype)(
        *operands(q, k, v, bias, meeting, padding),
        meeting.side,
        at(meeting.offsets),
        table_rows,
        at(grad_y),
        at(grad_qkv),
        at(grad_table),
        at(grad_padding),
        torch.get_num_threads(),
    )
    return grad_qkv, grad_table, grad_padding
