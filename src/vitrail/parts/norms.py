"""Norms beyond LayerNorm."""

from torch import Tensor, addcmul, float32, nn, promote_types

from vitrail.shapes import Tokens


class TokenGroupNorm(nn.GroupNorm):
    """Group normalisation over the tokens of a picture and the channels of a group.

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
        centred = input - self._over_group(input).to(input.dtype)
        scale = (self._over_group(centred.square()) + self.eps).rsqrt() * self.weight  # (B, 1, C)
        return addcmul(self.bias.to(input.dtype), centred, scale.to(input.dtype))

    def _over_group(self, x: Tensor) -> Tensor:
        """Average over the tokens and channels of each group, and say it for each channel: `(B, 1, C)`."""
        means = x.mean(dim=1, keepdim=True, dtype=promote_types(x.dtype, float32))
        means = means.unflatten(2, (self.num_groups, -1))  # (B, 1, groups, C / groups)
        return means.mean(dim=3, keepdim=True).expand_as(means).flatten(2)


class MapGroupNorm(TokenGroupNorm):
    """The same for a `(B, C, h, w)` map that lies channels last in memory, as convolutions leave it."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        cells = input.permute(0, 2, 3, 1)  # (B, h, w, C)
        return super().forward(cells.flatten(1, 2)).unflatten(1, cells.shape[1:3]).permute(0, 3, 1, 2)


class GroupNormReLU(MapGroupNorm):
    """Group normalisation of a map, then ReLU in place: what stands between a ResNet's convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and cut off what is negative."""
        return super().forward(input).relu_()
