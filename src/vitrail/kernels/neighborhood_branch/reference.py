"""The branch of a neighborhood attention as papers write it: what runs where nothing faster can."""

from torch import Tensor
from torch.nn.functional import linear, pad

from vitrail.kernels.branch import Linear, Norm, Vicinity, joined, normed
from vitrail.kernels.neighborhood import neighborhood
from vitrail.shapes import Tokens


def attend(x: Tokens, norm: Norm, qkv: Linear, proj: Linear, vicinity: Vicinity, keep: Tensor | None) -> Tensor:
    """Let cells hear of those around them: `x + keep * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`, the cells of a map, row by row.
        norm: before the attention.
        qkv: to queries, keys and values, `(3 C, C)`; of padding they are its bias.
        proj: of what was mixed, `(C, C)`.
        vicinity: who attends to whom.
        keep: a factor for the branch of each sample, `(B,)`, or None.
    """
    (height, width, _), (down, right) = vicinity.grid, vicinity.short
    cells = pad(normed(x, norm).unflatten(1, (height, width)), (0, 0, 0, right, 0, down))
    q, k, v = linear(cells, *qkv).unflatten(-1, (3, vicinity.heads, -1)).unbind(3)  # 3 x (B, H, W, h, d)
    mixed = neighborhood(q, k, v, vicinity.table, vicinity.kernel_size, vicinity.dilation)[:, :height, :width]
    return joined(x, linear(mixed.flatten(3).flatten(1, 2), *proj), keep)  # (B, H, W, h, d) -> (B, N, C)
