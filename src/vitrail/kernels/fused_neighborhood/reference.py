"""Residual branch of a neighborhood attention as papers write it: the specification and the fallback."""

from torch import Tensor
from torch.nn.functional import linear, pad

from vitrail.kernels.fused_types import LinearWeights, NeighborhoodSpec, NormWeights, normed, residual_add
from vitrail.kernels.neighborhood import neighborhood
from vitrail.shapes import Tokens


def attend(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    spec: NeighborhoodSpec,
    drop_scale: Tensor | None,
) -> Tensor:
    """Return `x + drop_scale * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`, the cells of a map, row by row.
        norm: before the attention.
        qkv: projection to queries, keys and values, `(3 C, C)`; those of padding are its bias.
        proj: output projection, `(C, C)`.
        spec: neighborhoods of the cells.
        drop_scale: a factor for the branch of each sample, `(B,)`, or None.
    """
    (height, width, _), (down, right) = spec.grid, spec.short
    cells = pad(normed(x, norm).unflatten(1, (height, width)), (0, 0, 0, right, 0, down))
    q, k, v = linear(cells, *qkv).unflatten(-1, (3, spec.heads, -1)).unbind(3)  # 3 x (B, H, W, h, d)
    mixed = neighborhood(q, k, v, spec.table, spec.kernel_size, spec.dilation)[:, :height, :width]
    return residual_add(x, linear(mixed.flatten(3).flatten(1, 2), *proj), drop_scale)  # (B, H, W, h, d) -> (B, N, C)
