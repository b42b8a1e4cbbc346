"""Residual branch of an attention as papers write it: the specification and the fallback."""

from torch import Tensor
from torch.nn.functional import linear

from vitrail.kernels.fused_types import AttentionGroups, LinearWeights, NormWeights, normed, residual_add
from vitrail.kernels.window import window
from vitrail.shapes import Tokens


def attend(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    groups: AttentionGroups,
    drop_scale: Tensor | None,
) -> Tensor:
    """Return `x + drop_scale * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the attention.
        qkv: projection to queries, keys and values, `(3 C, C)`; those of padding are its bias.
        proj: output projection, `(C, C)`.
        groups: which tokens attend to each other.
        drop_scale: a factor for the branch of each sample, `(B,)`, or None.
    """
    parts = linear(normed(x, norm), *qkv)
    mixed = window(parts, qkv.bias, groups.bias, groups.mask_index, groups.token_index, groups.heads)
    return residual_add(x, linear(mixed, *proj), drop_scale)
