"""Fused decoders that convolve levels of a pyramid where they are small, and enlarge the products."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.fused.map_convolution import FusedConv3x3, folded_weights
from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.native.allocator import empty
from vitrail.native.gemm import linear, pack_linear
from vitrail.native.winograd import add_upsampled
from vitrail.parts.decoders.light import MLPDecoder
from vitrail.parts.decoders.resize import resize_map
from vitrail.parts.decoders.upernet import UperNetDecoder


class FusedUperNet(nn.Module):
    """UperNet whose fusion is a sum over levels.

    conv3x3([p_1; up(p_2); ...; up(p_L)]) = conv_1(p_1) + sum_l sum over taps t of up(W_lt p_l)[. + t]

    A product over channels commutes with an interpolation over places, so levels are multiplied at their own size: of
    the four levels at strides 4 to 32, the fusion needs a third of the products, and no concatenated map. Exact but for
    rounding, at the borders too.
    """

    def __init__(self, decoder: UperNetDecoder):
        super().__init__()
        self.width, self.pooling = decoder.width, decoder.pooling
        self.lateral, self.smooth = decoder.lateral, decoder.smooth
        weight, bias = folded_weights(decoder.fuse)
        first, *coarser = weight.split(decoder.width, dim=1)
        self.first = FusedConv3x3(first, bias.float(), slope=0.0)
        self.taps = [
            pack_linear(each.permute(2, 3, 0, 1).flatten(0, 2).float(), None, torch.float32) for each in coarser
        ]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode `(B, C_l, H_l, W_l)` to `(B, width, H_1, W_1)`."""
        levels = [project(each) for project, each in zip(self.lateral, maps, strict=False)]
        levels.append(self.pooling(maps[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] += resize_map(levels[i], levels[i - 1].shape[2:])
        levels[:-1] = [smooth(each) for smooth, each in zip(self.smooth, levels, strict=False)]
        return self._fuse(levels)

    def _fuse(self, levels: list[Tensor]) -> Tensor:
        first, *coarser = levels
        if not coarser:
            return self.first(first)
        sums = empty(first.shape[0], *first.shape[2:], self.width, dtype=torch.float32)
        for i, (each, packed) in enumerate(zip(coarser, self.taps, strict=True)):
            products = linear(each.permute(0, 2, 3, 1), packed).unflatten(3, (9, self.width))
            add_upsampled(products, sums, add=i > 0)
        return self.first(first, sums)


class FusedMLPDecoder(nn.Module):
    """SegFormer's head with projection and fusion of each level as one product at the level's own size.

    relu(norm(W [up(P_L c_L + b_L); ...])) = relu(sum_l up(W_l P_l c_l) + b)
    """

    def __init__(self, decoder: MLPDecoder):
        super().__init__()
        self.width = decoder.width
        if has_hooks(decoder.projections):
            raise NotConverted("its projections have hooks or a forward of their own")
        weight, bias = folded_weights(decoder.fuse)
        parts = weight.flatten(1).split(decoder.width, dim=1)[::-1]  # the decoder concatenates the coarsest first
        self.packed = []
        for layer, part in zip(decoder.projections, parts, strict=True):
            assert isinstance(layer, nn.Linear)
            bias = bias + part @ layer.bias.detach().double()
            self.packed.append((part @ layer.weight.detach().double()).float())
        biases = [bias.float(), *[None] * (len(parts) - 1)]
        self.packed = [pack_linear(each, b, torch.float32) for each, b in zip(self.packed, biases, strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode `(B, C_l, H_l, W_l)` to `(B, width, H_1, W_1)`."""
        levels = [
            linear(each.permute(0, 2, 3, 1), packed).permute(0, 3, 1, 2)
            for each, packed in zip(maps, self.packed, strict=True)
        ]
        y = levels[0]
        for each in levels[1:]:
            y += resize_map(each, y.shape[2:])
        return y.relu_()
