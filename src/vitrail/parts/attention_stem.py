"""Stem of a ResNet without convolutions: attention within small blocks of pixels, with values that know their place."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.parts.attend import Attend, check_heads
from vitrail.parts.convolutions import channels_last
from vitrail.shapes import Image


class SpatiallyAwareAttention(nn.Module):
    """Each pixel attends to the pixels of its `b x b` block, whose values depend on their place in it.

    y_i = concat_h softmax_j(q_i^T k_j) v_j, v_j = (sum_m p(a, c, m) W_V^m) x_j, j at row a and column c of the block,
    p(a, c, m) = softmax_m((row_a + column_c)^T nu_m)

    A convolution has a matrix for each place, which makes edge filters easy to learn; here `mixtures` matrices are
    mixed by place, alike in all heads. "Stand-Alone Self-Attention in Vision Models", section 3.2 and
    appendix A.1. An image is padded with zeros to whole blocks.

    Args:
        in_channels: channels of the image.
        dim: channels C.
        num_heads: heads h.
        block: side b of a block in pixels.
        mixtures: value matrices M.

    Example:
        >>> SpatiallyAwareAttention(3, 8, num_heads=2)(torch.randn(2, 3, 8, 6)).shape
        torch.Size([2, 8, 8, 8])
    """

    def __init__(self, in_channels: int, dim: int, num_heads: int = 4, block: int = 4, mixtures: int = 4):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.block, self.scale = num_heads, block, (dim // num_heads) ** 0.5
        self.qk = nn.Conv2d(in_channels, 2 * dim, kernel_size=1, bias=False)
        self.values = nn.Parameter(torch.empty(mixtures, dim, in_channels))
        self.rows, self.columns = (nn.Parameter(torch.empty(block, dim // num_heads)) for _ in range(2))
        self.mixture = nn.Parameter(torch.empty(mixtures, dim // num_heads))
        self.attend = Attend()
        for parameter in (self.values, self.rows, self.columns, self.mixture):
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def forward(self, images: Image) -> Tensor:
        """Return `(B, C, Y, X)`, Y and X rounded up to whole blocks."""
        x = channels_last(pad(images, (0, -images.shape[3] % self.block, 0, -images.shape[2] % self.block)))
        q, k = (self._heads(self._blocks(part)) for part in self.qk(x).chunk(2, dim=1))
        v = self._heads(torch.einsum("pci,bgpi->bgpc", self.place_values(), self._blocks(x)))
        mixed = self.attend(self.scale * q, k, v)  # (B, G, h, b b, d); the scale cancels that of `Attend`
        mixed = mixed.transpose(2, 3).flatten(3)  # (B, G, b b, C)
        mixed = mixed.unflatten(2, (self.block, -1)).unflatten(1, (x.shape[2] // self.block, -1))
        return mixed.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # from (B, gy, gx, b, b, C)

    def place_values(self) -> Tensor:
        """Return the value matrix of each place of a block, `(b b, C, in_channels)`."""
        places = (self.rows[:, None] + self.columns).flatten(0, 1)  # (b b, d)
        shares = (places @ self.mixture.mT).softmax(dim=-1)
        return torch.einsum("pm,mci->pci", shares, self.values)

    def _blocks(self, x: Tensor) -> Tensor:
        """Cut a map `(B, C, Y, X)` into blocks `(B, G, b b, C)`."""
        x = x.unflatten(3, (-1, self.block)).unflatten(2, (-1, self.block))  # (B, C, gy, b, gx, b)
        return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(3, (self.num_heads, -1)).transpose(2, 3)  # (B, G, b b, C) -> (B, G, h, b b, d)
