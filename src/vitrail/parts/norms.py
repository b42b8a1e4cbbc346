"""Norms beyond LayerNorm."""

from typing import Any

import torch
from torch import Tensor, addcmul, bmm, float32, nn, promote_types
from torch.autograd.function import once_differentiable

from vitrail.shapes import Tokens


class TokenGroupNorm(nn.GroupNorm):
    """Group normalisation over the tokens of an image and the channels of a group.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var over the tokens and channels of one group

    "Group Normalization", section 3.1. Written out because PyTorch's channels-last kernel computes var as
    E[x^2] - E[x]^2, which loses digits where the mean is far from zero, and takes ten times as long in bfloat16 on a
    CPU. With one group it is PoolFormer's norm, which is not LayerNorm: that one looks at each token alone.

    Args:
        num_groups: groups that the channels are divided into.
        num_channels: channels C.

    Example:
        >>> import torch
        >>> y = TokenGroupNorm(1, 8)(torch.randn(2, 6, 8))
        >>> bool((y.mean(dim=(1, 2)).abs() < 1e-6).all())
        True
    """

    def forward(self, input: Tokens) -> Tensor:
        """Normalise; the statistics are taken in fp32 at least."""
        return GroupNormalise.apply(input, self.weight, self.bias, self.num_groups, self.eps)


class ScaledGroupNorm(TokenGroupNorm):
    """Group normalisation with a scale and no bias: `y = gamma * (x - mean) / sqrt(var + eps)`.

    "MetaFormer Baselines for Vision", section 3: no norm inside a stage has a bias.

    Args:
        num_groups: groups that the channels are divided into.
        num_channels: channels C.
        eps: addend to the variance.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-6):
        super().__init__(num_groups, num_channels, eps)
        self.register_parameter("bias", None)

    def forward(self, input: Tokens) -> Tensor:
        """Normalise; the statistics are taken in fp32 at least."""
        bias = self.weight.new_zeros(self.num_channels)
        return GroupNormalise.apply(input, self.weight, bias, self.num_groups, self.eps)


class MapGroupNorm(TokenGroupNorm):
    """The same for a `(B, C, h, w)` map in channels-last memory, the output of convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the map as tokens."""
        cells = input.permute(0, 2, 3, 1)  # (B, h, w, C)
        return self.on_tokens(cells.flatten(1, 2)).unflatten(1, cells.shape[1:3]).permute(0, 3, 1, 2)

    def on_tokens(self, x: Tokens) -> Tensor:
        """Apply the norm to the map's tokens."""
        return super().forward(x)


class GroupNormReLU(MapGroupNorm):
    """Group normalisation of a map, then ReLU in place, between the convolutions of a ResNet."""

    def on_tokens(self, x: Tokens) -> Tensor:
        """Normalise, then ReLU on the result; in place on a view of the result would be 20 times slower."""
        return super().on_tokens(x).relu_()


class GroupNormalise(torch.autograd.Function):
    """Group normalisation of `(B, N, C)` tokens with its gradient written out.

    With z = (x - mean) / sqrt(var + eps) and g = gamma * dL/dy, averages over the group:

    dL/dx = (g - mean(g) - z * mean(g * z)) / sqrt(var + eps)

    Both directions are a scale and a shift for each image and channel around two sums over the tokens. Left to
    autograd, each average sends a gradient as large as the map, in fp32, and BiT trains at 0.6 times the speed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """Normalise `x` over its tokens and the channels of each of `groups`."""
        centred = x - _group_mean(_sum(x), x, groups).to(x.dtype)
        inverse = (_group_mean(_sum(centred.square()), x, groups) + eps).rsqrt()  # 1 / deviation, (B, 1, C)
        ctx.groups = groups
        ctx.save_for_backward(centred, inverse, weight)
        return addcmul(bias.to(x.dtype), centred, (inverse * weight).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        centred, inverse, weight = ctx.saved_tensors
        grad = grad.contiguous()
        over_y, over_yz = _sum(grad), _sum(grad * centred) * inverse  # sums over the tokens, (B, 1, C)
        mean_g, mean_gz = (_group_mean(sums * weight, grad, ctx.groups) for sums in (over_y, over_yz))
        pull = addcmul((-inverse * mean_g).to(grad.dtype), centred, (-inverse.square() * mean_gz).to(grad.dtype))
        into_x = pull.addcmul_(grad, (inverse * weight).to(grad.dtype))
        return into_x, over_yz.sum((0, 1)).to(weight.dtype), over_y.sum((0, 1)).to(weight.dtype), None, None


def _sum(x: Tensor) -> Tensor:
    """Add up the tokens, in fp32 at least: `(B, N, C) -> (B, 1, C)`."""
    if x.dtype in (torch.bfloat16, torch.float16):  # a product adds up in fp32 without a copy in fp32
        return bmm(x.new_ones(()).expand(x.shape[0], 1, x.shape[1]), x).float()
    return x.sum(dim=1, keepdim=True, dtype=promote_types(x.dtype, float32))


def _group_mean(sums: Tensor, x: Tensor, groups: int) -> Tensor:
    """Turn sums over the tokens of `x` into averages over each group, said for each channel: `(B, 1, C)`."""
    means = sums.unflatten(2, (groups, -1)) / x.shape[1]  # (B, 1, groups, C / groups)
    return means.mean(dim=3, keepdim=True).expand_as(means).flatten(2)
