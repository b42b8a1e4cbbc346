"""The branch of an attention as papers write it: the specification, and what runs where nothing faster can."""

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
    meeting: AttentionGroups,
    drop_scale: Tensor | None,
) -> Tensor:
    """Let tokens hear of each other: `x + drop_scale * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the attention.
        qkv: to queries, keys and values, `(3 C, C)`; of padding they are its bias.
        proj: of what was mixed, `(C, C)`.
        meeting: who attends to whom.
        drop_scale: a factor for the branch of each sample, `(B,)`, or None.
    """
    parts = linear(normed(x, norm), *qkv)
    mixed = window(parts, qkv.bias, meeting.bias, meeting.mask_index, meeting.token_index, meeting.heads)
    return residual_add(x, linear(mixed, *proj), drop_scale)
