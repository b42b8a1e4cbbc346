"""Fused stem of a residual network, for CPU inference."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.fused.bottlenecks import TOGETHER, filters_of, scale_of
from vitrail.fused.conv_bottlenecks import LANES, batch_scale, pack, window_of
from vitrail.fused.unsupported import NotConverted, Seats, check_parts
from vitrail.grid import Grid
from vitrail.native.bottleneck import (
    GELU,
    NONE,
    RELU,
    PackedFilters,
    Size,
    Window,
    convolve,
    convolve_shifted,
    finalize,
    pack_filters,
    pool,
)
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.winograd import TILED, PackedFilters3x3, convolve_3x3, pack_3x3, tiles_of_2_pay_off
from vitrail.parts.conv_patches import ConvPatches
from vitrail.parts.convolutions import SameMaxPool2d, SameStdConv2d, StdConv2d
from vitrail.parts.embeddings import ConvStem
from vitrail.parts.norms import GroupNormReLU
from vitrail.parts.pooled_conv_tokenizer import PooledConvTokenizer
from vitrail.shapes import Image

STEM_SEATS: Seats = {
    "conv": (StdConv2d, SameStdConv2d),
    "norm": (nn.Identity, GroupNormReLU),
    "pool": (SameMaxPool2d, nn.Sequential),
}

UNIT: Seats = {"0": (nn.Conv2d,), "1": (nn.BatchNorm2d,), "2": (nn.ReLU,)}
"""A convolution with batch norm, as `conv_norm_relu` makes it."""

LARGEST = 65280.0
"""Largest number that bf16 and fp16 both represent: a larger one would be infinite in fp16, then NaN."""


class FusedStem(nn.Module):
    """Convolve, normalise while pooling, pool; a few images at a time: `images -> (x, grid)`.

    Every block after the stem amplifies its rounding errors: most of the error of a BiT-50 in bf16 came from this
    layer, a thirtieth of its operations. So images x and filters w are split in two parts each, and an image has three
    times its channels: high(x) high(w) + low(x) high(w) + high(x) low(w).
    """

    def __init__(self, stem: ConvStem, window: Window, dtype: torch.dtype):
        super().__init__()
        self.window = window
        weight, stand = filters_of(stem.conv)
        if dtype != torch.float32:
            high, low = halves(weight, dtype)
            weight = torch.cat([high, high, low], 1)
        self.conv = pack_filters(weight, stand, dtype)
        self.norm = scale_of(stem.norm) if isinstance(stem.norm, GroupNormReLU) else None

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convert images to the tokens of a coarse map."""
        dtype, tokens, size = self.conv.panels.dtype, [], images.shape[2:]
        places = [self.conv.window.places(side)[0] for side in size]
        together = max(1, TOGETHER // (places[0] * places[1] * self.conv.outputs * RESIDUAL[dtype].itemsize))
        for part in images.float().split(together):
            x, size, moments = convolve(images_of(part, dtype), (images.shape[2], images.shape[3]), self.conv)
            x, size = pool(x, size, self.window, None if self.norm is None else finalize(moments, self.norm))
            tokens.append(x)
        return torch.cat(tokens), Grid(*size)


def halves(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Split fp32 numbers into the sum of two numbers in `dtype`, up to the square of its rounding error.

    Example:
        >>> high, low = halves(torch.tensor(1.2345678), torch.bfloat16)
        >>> high.item(), round((high + low).item(), 5)
        (1.234375, 1.23457)
    """
    high = x.to(dtype).float()
    return high, (x - high).to(dtype).float()


class StemLayer(NamedTuple):
    """A convolution of a stem.

    Args:
        filters: packed, with the scale of a batch norm folded in; for Winograd's tiles with its shift too.
        shift: shift of the norm, `(outputs,)` in fp32.
        pooled: whether a 3 x 3 max pooling of stride 2 follows.
        activation: one of those of `convolve_shifted`; ReLU if it is pooled, and with Winograd's tiles.
    """

    filters: PackedFilters | PackedFilters3x3
    shift: Tensor
    pooled: bool
    activation: int = RELU

    def convolve(self, x: Tensor, size: Size, dtype: torch.dtype) -> tuple[Tensor, Size]:
        """Convolve, shift and activate."""
        if isinstance(self.filters, PackedFilters3x3):
            return convolve_3x3(x.unflatten(1, size), self.filters, slope=0.0, dtype=dtype).flatten(1, 2), size
        return convolve_shifted(x, size, self.filters, self.shift, dtype=dtype, activation=self.activation)


class FusedConvStem(nn.Module):
    """Convolutions with activations, some of them pooled, a few images at a time: `images -> (x, grid)`.

    Images are rounded to the compute dtype: unlike BiT's, these networks do not amplify it (docs/log.md, 2026-11-30).
    """

    def __init__(self, layers: list[StemLayer]):
        super().__init__()
        self.layers = layers  # in a list, so that shifts stay in fp32

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convert images to the tokens of a coarse map."""
        first, tokens, size = self.layers[0].filters, [], images.shape[2:]
        assert isinstance(first, PackedFilters)
        dtype, places = first.panels.dtype, [first.window.places(side)[0] for side in size]
        widest = max(layer.filters.outputs for layer in self.layers)
        together = max(1, TOGETHER // (places[0] * places[1] * widest * RESIDUAL[dtype].itemsize))
        for part in images.float().split(together):
            x, size = part.to(dtype), (images.shape[2], images.shape[3])
            for layer in self.layers:
                after = RESIDUAL[dtype] if layer.pooled or layer is self.layers[-1] else dtype
                x, size = layer.convolve(x, size, after)
                if layer.pooled:
                    x, size = pool(x, size, Window(3, 2))
            tokens.append(x)
        return torch.cat(tokens), Grid(*size)


def fuse_pooled_tokenizer(tokenizer: PooledConvTokenizer, dtype: torch.dtype) -> FusedConvStem:
    """Return the fused tokenizer.

    Raises:
        NotConverted: another layer, activation or pooling, or channels that do not fill whole vectors.
    """
    check_parts(tokenizer.pool, {"0": (nn.ReLU,), "1": (nn.MaxPool2d,)})
    _check_max_pool(tokenizer.pool[1])
    layers = list[StemLayer]()
    for conv in tokenizer.convs:
        if not isinstance(conv, nn.Conv2d):
            raise NotConverted(f"its convs have a {type(conv).__name__}")
        filters = pack(conv.weight.detach().float(), window_of(conv), dtype)
        layers.append(StemLayer(filters, torch.zeros(filters.outputs), pooled=True))
    return FusedConvStem(layers)


def images_of(images: Image, dtype: torch.dtype) -> Tensor:
    """Return images in the residual dtype; below fp32 with the parts that three times their filters expect."""
    if dtype != torch.float32:
        high, low = halves(images.clamp(-LARGEST, LARGEST), dtype)
        images = torch.cat([high, low, high], 1)
    return images.to(RESIDUAL[dtype])


def fuse_stem(stem: ConvStem, dtype: torch.dtype) -> FusedStem | FusedConvStem:
    """Return the fused stem of a residual network.

    Raises:
        NotConverted: another convolution, norm or pooling.
    """
    if type(stem.conv) is nn.Sequential:
        return _fuse_normed_stem(stem, dtype)
    check_parts(stem, STEM_SEATS)
    window = _pooling(stem.pool)
    if window.same and isinstance(stem.norm, nn.Identity):
        raise NotConverted("its pooling pads with the lowest value, which is zero only after a ReLU")
    return FusedStem(stem, window, dtype)


def _fuse_normed_stem(stem: ConvStem, dtype: torch.dtype) -> FusedConvStem:
    check_parts(stem, {"conv": (nn.Sequential,), "norm": (nn.Identity,), "pool": (nn.MaxPool2d,)})
    first = next(iter(stem.conv.children()), None)
    units = [stem.conv] if isinstance(first, nn.Conv2d) else list(stem.conv.children())
    for unit in units:
        if type(unit) is not nn.Sequential:
            raise NotConverted(f"its conv has a {type(unit).__name__}")
        check_parts(unit, UNIT)
    last = units[-1][0] if units else None  # pyright: ignore[reportIndexIssue]
    outputs = last.out_channels if isinstance(last, nn.Conv2d) else 0
    if outputs % LANES or not outputs:
        raise NotConverted(f"its {outputs} channels do not fill whole vectors")
    _check_max_pool(stem.pool)
    normed = _normed_layers([(unit[0], unit[1]) for unit in units], dtype, RELU)  # pyright: ignore[reportIndexIssue]
    return FusedConvStem([*normed[:-1], normed[-1]._replace(pooled=True)])


def _normed_layers(pairs: list[tuple[nn.Module, nn.Module]], dtype: torch.dtype, activation: int) -> list[StemLayer]:
    """Fold batch norms in the convolutions before them; outputs are filled up to whole vectors with zeros.

    A layer after the first is computed in Winograd's tiles if that is faster.

    Raises:
        NotConverted: a convolution has other padding, groups or a bias.
    """
    layers, inputs = list[StemLayer](), None
    for conv, norm in pairs:
        assert isinstance(conv, nn.Conv2d)
        scale, shift = batch_scale(norm)
        spare = -conv.out_channels % LANES
        weight = pad((conv.weight.detach().double() * scale[:, None, None, None]).float(), (0, 0) * 3 + (0, spare))
        if inputs is not None:
            weight = pad(weight, (0, 0, 0, 0, 0, inputs - weight.shape[1]))
        window, shift = window_of(conv), pad(shift, (0, spare)).float()
        in_tiles = inputs is not None and activation == RELU and window == TILED and tiles_of_2_pay_off(dtype)
        filters = pack_3x3(weight, shift, 2, dtype) if in_tiles else pack_filters(weight, window, dtype)
        inputs = len(weight)
        layers.append(StemLayer(filters, shift, False, activation))
    return layers


def fuse_conv_patches(patches: ConvPatches, dtype: torch.dtype) -> FusedConvStem:
    """Return the fused patch embedding: convolutions with batch norms, and GELU between them.

    Raises:
        NotConverted: another layer, norm or activation, or channels that do not fill whole vectors.
    """
    if patches.act.approximate != "none":
        raise NotConverted(f"its act is GELU with approximate={patches.act.approximate!r}, not the exact GELU")
    for conv, norm in zip(patches.convs, patches.norms, strict=True):
        if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
            raise NotConverted(f"it has a {type(conv).__name__} and a {type(norm).__name__}")
    layers = _normed_layers([*zip(patches.convs, patches.norms, strict=True)], dtype, GELU)
    width = patches.norms[-1].num_features
    if layers[-1].filters.outputs != width:
        raise NotConverted(f"its {width} channels do not fill whole vectors")
    return FusedConvStem([*layers[:-1], layers[-1]._replace(activation=NONE)])


def _check_max_pool(pool: nn.Module) -> None:
    """Check that a pooling is that of `pool` with `Window(3, 2)` after a ReLU.

    Raises:
        NotConverted: it is not.
    """
    if not isinstance(pool, nn.MaxPool2d) or _sides(pool) != (3, 2, 1, 1) or pool.ceil_mode:
        raise NotConverted("its pooling is no maximum of 3 x 3 with stride 2 and padding 1")


def _sides(pool: nn.MaxPool2d) -> tuple[object, ...]:
    return pool.kernel_size, pool.stride, pool.padding, pool.dilation


def _pooling(pool: nn.Module) -> Window:
    """Read a pooling with zeros beyond the map, or after a ReLU with the lowest value, which is the same."""
    if type(pool) is SameMaxPool2d:
        return Window(pool.kernel_size, pool.stride, same=True)
    if isinstance(pool, nn.Sequential) and [type(part) for part in pool] == [nn.ConstantPad2d, nn.MaxPool2d]:
        border, largest = pool
        sides = largest.kernel_size, largest.stride, largest.padding, largest.dilation
        if border.value == 0 and border.padding == (1, 1, 1, 1) and sides == (3, 2, 0, 1):
            return Window(3, 2)
    raise NotConverted(f"{type(pool).__name__} has no fused operation")
