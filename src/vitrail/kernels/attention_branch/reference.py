"""The branch of an attention as papers write it: the specification, and what runs where nothing faster can."""

from torch import Tensor
from torch.nn.functional import linear

from vitrail.kernels.branch import Linear, Meeting, Norm, joined, normed
from vitrail.kernels.window import window
from vitrail.shapes import Tokens


def attend(x: Tokens, norm: Norm, qkv: Linear, proj: Linear, meeting: Meeting, keep: Tensor | None) -> Tensor:
    """Let tokens hear of each other: `x + keep * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the attention.
        qkv: to queries, keys and values, `(3 C, C)`; of padding they are its bias.
        proj: of what was mixed, `(C, C)`.
        meeting: who attends to whom.
        keep: a factor for the branch of each sample, `(B,)`, or None.
    """
    parts = linear(normed(x, norm), *qkv)
    mixed = window(parts, qkv.bias, meeting.bias, meeting.kinds, meeting.slots, meeting.heads)
    return joined(x, linear(mixed, *proj), keep)
