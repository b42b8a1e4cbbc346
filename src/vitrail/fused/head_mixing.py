"""Fused attention with linear layers over heads (DeepViT, CaiT), for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.conv_bottlenecks import batch_scale
from vitrail.fused.unsupported import NotConverted, require_libraries
from vitrail.grid import Grid
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.native.mixed_attention import MOST_HEADS, HeadLayer, mixed_attention
from vitrail.parts.head_mixing import HeadLinear, HeadMixingAttend
from vitrail.shapes import Tokens


class FusedHeadMixing(nn.Module):
    """`x + scale(mixer(norm(x)))` with `y = after(softmax(before(q k^T / sqrt(d)))) v`; no map reaches memory.

    Args:
        qkv: queries, keys and values, with the norm and the scale of the queries folded in.
        proj: output projection, with the LayerScale folded in.
        eps: of the norm.
        heads: number of heads h.
        attend: holds the layers over heads; a batch norm after one is folded in.
        dtype: compute dtype.

    Raises:
        NotConverted: another layer over heads, too many heads, or the library cannot be built.
    """

    def __init__(
        self,
        qkv: tuple[Tensor, Tensor],
        proj: tuple[Tensor, Tensor | None],
        eps: float,
        heads: int,
        attend: HeadMixingAttend,
        dtype: torch.dtype,
    ):
        super().__init__()
        if heads > MOST_HEADS:
            raise NotConverted(f"it has {heads} heads, and at most {MOST_HEADS} are mixed")
        require_libraries("mixed_attention")
        self.qkv, self.proj = pack_linear(*qkv, dtype), pack_linear(*proj, dtype)
        self.eps, self.heads, self.dtype = eps, heads, dtype
        self.before, self.after = (layer_of(part) for part in (attend.before, attend.after))

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        return linear(mixed_attention(qkv, self.heads, self.before, self.after), self.proj, ADD, add=x)


def layer_of(part: nn.Module) -> HeadLayer | None:
    """Return the layer over heads of a part, None for the identity.

    Raises:
        NotConverted: it is something else.
    """
    if type(part) is nn.Identity:
        return None
    linear, *norms = part if type(part) is nn.Sequential and len(part) else [part]
    if type(linear) is not HeadLinear or [type(norm) for norm in norms] not in ([], [nn.BatchNorm2d]):
        raise NotConverted(f"its layer over heads is {type(part).__name__}")
    weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
    for norm in norms:
        scale, shift = batch_scale(norm)
        weight, bias = weight * scale[:, None], bias * scale + shift
    return HeadLayer(weight.float().contiguous(), bias.float())
