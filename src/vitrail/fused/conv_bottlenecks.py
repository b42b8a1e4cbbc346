"""Fused bottlenecks with batch normalisation, whose 3 x 3 convolution may be attention, for CPU inference."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.bottlenecks import FusedBottlenecks, Step, check_stage
from vitrail.fused.convolution import check_conv
from vitrail.fused.linear import DtypeBoundary
from vitrail.fused.relative_attention import (
    BOTTLENECK_SEATS,
    HALO_SEATS,
    FusedBottleneckAttention,
    FusedHaloAttention,
)
from vitrail.fused.unsupported import (
    NotConverted,
    Seats,
    check_parts,
    parts_unsupported_reason,
    require_libraries,
)
from vitrail.grid import Grid
from vitrail.native.bottleneck import NONE, Affine, PackedFilters, Size, Window, convolve_shifted, pack_filters
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.local_attention import KERNELS, Offsets, local_attention
from vitrail.native.winograd import TILED, convolve_3x3, pack_3x3, tiles_of_2_pay_off
from vitrail.parts.attend import Attend
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry, StridedAttentionEntry
from vitrail.parts.non_local import NonLocalBottleneck
from vitrail.parts.regularisation import DropPath
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention
from vitrail.parts.token_mixers.halo_attention import HaloAttention, SplitHaloPosition, StandAloneAttention

LANES = 16
"""Channels of a map are a multiple of it (native/bottleneck.cpp)."""


class NormedConvolution(nn.Module):
    """A convolution with its batch norm folded in: `(x, size) -> (x, size)`."""

    def __init__(self, conv: nn.Module, norm: nn.Module, dtype: torch.dtype):
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        weight, shift = folded(conv, norm)
        self.window = window_of(conv)
        self.filters = pack(weight.float(), self.window, dtype)
        self.shift = [shift.float()]  # in a list, so that it stays in fp32

    def forward(self, x: Tensor, size: Size, **options: Any) -> tuple[Tensor, Size]:
        """Convolve; `options` are those of `convolve_shifted`."""
        return convolve_shifted(x, size, self.filters, self.shift[0], **options)


class NormedConvolution3x3(nn.Module):
    """The same for 3 x 3 filters of stride 1 by Winograd, with a ReLU after it: `(x, size) -> (x, size)`."""

    window = TILED

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, dtype: torch.dtype):
        super().__init__()
        weight, shift = folded(conv, norm)
        if len(weight) % LANES:
            raise NotConverted(f"{len(weight)} channels do not fill whole vectors")
        self.packed = pack_3x3(weight, shift, tile=2, dtype=dtype)

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        """Convolve."""
        return convolve_3x3(x.unflatten(1, size), self.packed, slope=0.0).flatten(1, 2), size


def fuse_middle(conv: nn.Conv2d, norm: nn.Module, dtype: torch.dtype) -> NormedConvolution | NormedConvolution3x3:
    """Return the fastest form of a convolution between two others, with its batch norm and a ReLU.

    Raises:
        NotConverted: the convolution has other padding, groups or a bias.
    """
    by_winograd = window_of(conv) == TILED and tiles_of_2_pay_off(dtype)
    return (NormedConvolution3x3 if by_winograd else NormedConvolution)(conv, norm, dtype)


class KnownNorm(nn.Module):
    """A batch norm after a token mixer, applied by the convolution that reads its map."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        scale, shift = batch_scale(norm)
        self.values = [Affine(scale.float()[None], shift.float()[None])]  # in a list, so that it stays in fp32

    def on(self, x: Tensor) -> Affine:
        """Return scale and shift of each image of a batch."""
        scale, shift = self.values[0]
        return Affine(scale.repeat(len(x), 1), shift.repeat(len(x), 1))


class FusedLocalAttention(nn.Module):
    """Stand-alone self-attention: `(x, size) -> x`, from the compute dtype to the residual dtype."""

    def __init__(self, mixer: StandAloneAttention, dtype: torch.dtype):
        super().__init__()
        position, heads = mixer.position, mixer.num_heads
        assert isinstance(position, SplitHaloPosition)
        if position.rows.shape[1] not in KERNELS:
            raise NotConverted(f"its neighborhood has side {position.rows.shape[1]}, and {KERNELS} are compiled")
        kv = (
            mixer.kv.weight.detach().unflatten(0, (heads, 2, -1)).transpose(0, 1).flatten(0, 2)
        )  # (h, 2, d) -> (2, h, d)
        weight = torch.cat([mixer.q.weight.detach(), kv]).float()
        self.filters, self.dtype = pack(weight[:, :, None, None], Window(1, 1), dtype), dtype
        rows, columns = (x.detach().float().contiguous() for x in (position.rows, position.columns))
        self.offsets = [Offsets(rows, columns)]  # in a list, so that it stays in fp32
        self.shift = [torch.zeros(len(weight))]

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Project and attend."""
        options: Any = {"dtype": RESIDUAL[self.dtype], "activation": NONE}
        qkv = convolve_shifted(x, size, self.filters, self.shift[0], **options)[0]
        return local_attention(qkv, Grid(*size), self.offsets[0])


class CalledMixer(nn.Module):
    """A token mixer that is called as it is: `(x, size) -> x`, from the compute dtype to the residual dtype."""

    def __init__(self, mixer: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.mixer = DtypeBoundary(mixer, dtype)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Mix."""
        return as_residual(self.mixer(x, Grid(*size)), RESIDUAL[x.dtype])


class FusedConvBottleneck(nn.Module):
    """relu(shortcut + norm3(conv3(relu(norm2(mix(relu(norm1(conv1(x))))))))): `(step, into) -> step`.

    The shortcut has the residual dtype; maps within the branch have the compute dtype.
    """

    def __init__(self, block: AttentionBottleneck, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.first = NormedConvolution(block.conv1, block.norm1, dtype)
        self.last = NormedConvolution(block.conv3, block.norm3, dtype)
        entry = isinstance(block, AttentionEntry)
        self.proj = NormedConvolution(block.proj, block.proj_norm, dtype) if entry else None
        self.after: nn.Module | None = None
        self.mixer: nn.Module | None = None
        if hasattr(block, "conv2"):
            self.middle = fuse_middle(block.conv2, block.norm2, dtype)
            self.windows = [self.middle.window]
        else:
            self.mixer, self.pool = _mixer(block.token_mixer, dtype), block.pool
            self.norm2 = KnownNorm(block.norm2)
            self.pooled = type(block) is not StridedAttentionEntry and block.pool.kernel_size != 1
            stride = block.proj.stride[0] if isinstance(block, AttentionEntry) else 1
            self.windows = [Window(stride, stride, same=True)]
        if isinstance(block, NonLocalBottleneck):
            self.after = DtypeBoundary(block.non_local, dtype)
        self.outputs = self.last.filters.outputs

    def forward(self, step: Step, into: Tensor | None) -> Step:
        """Add the branch."""
        x, norm = step.x, None
        target = into if self.after is None else None
        shortcut = x if self.proj is None else self.proj(x, step.size, activation=NONE, into=target)[0]
        y, size = self.first(x, step.size, dtype=self.dtype)
        if self.mixer is None:
            y, size = self.middle(y, size)
        else:
            y, size = self.mix(y, size)
            norm = self.norm2.on(y)
        y, size = self.last(y, size, norm=norm, add=shortcut, into=target, dtype=x.dtype)
        if self.after is None:
            return Step(y, size)
        y = self.after(y, Grid(*size))
        return Step(y if into is None else into.copy_(y), size)

    def mix(self, y: Tensor, size: Size) -> tuple[Tensor, Size]:
        """Attend and pool."""
        assert self.mixer is not None
        y = self.mixer(y, size)
        smaller = self.windows[0].places(size[0])[0], self.windows[0].places(size[1])[0]
        if self.pooled:
            y = self.pool(Grid(*size).cells(y).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        return y, smaller


_COMMON: Seats = {
    "act": (nn.ReLU,),
    "conv1": (nn.Conv2d,),
    "norm1": (nn.BatchNorm2d,),
    "norm2": (nn.BatchNorm2d,),
    "conv3": (nn.Conv2d,),
    "norm3": (nn.BatchNorm2d,),
    "drop_path": (DropPath,),
}
_CONV: Seats = {"conv2": (nn.Conv2d,)}
_MIXER: Seats = {"token_mixer": (), "pool": (nn.AvgPool2d,)}
_ENTRY: Seats = {"proj": (nn.Conv2d,), "proj_norm": (nn.BatchNorm2d,)}
_ALSO: dict[type[nn.Module], Seats] = {
    AttentionBottleneck: {},
    AttentionEntry: _ENTRY,
    StridedAttentionEntry: _ENTRY,
    NonLocalBottleneck: {"non_local": ()},
}
STAND_ALONE_SEATS: Seats = {
    "q": (nn.Linear,),
    "kv": (nn.Linear,),
    "position": (SplitHaloPosition,),
    "attend": (Attend,),
}


class MixerOperation(NamedTuple):
    """Fused operation of a token mixer in a bottleneck.

    Args:
        seats: its known parts.
        library: native library that it calls.
        make: returns it, from the mixer and the compute dtype.
    """

    seats: Seats
    library: str
    make: Callable[..., nn.Module]


MIXERS: dict[type[nn.Module], MixerOperation] = {
    StandAloneAttention: MixerOperation(STAND_ALONE_SEATS, "local_attention", FusedLocalAttention),
    BottleneckAttention: MixerOperation(BOTTLENECK_SEATS, "attention", FusedBottleneckAttention),
    HaloAttention: MixerOperation(HALO_SEATS, "attention", FusedHaloAttention),
}
"""The operation of a mixer of exactly this type."""

CALLED = ("token_mixer", "non_local")
"""Children of a bottleneck that are called as they are."""


def fuse_conv_stage(stage: Stage, dtype: torch.dtype) -> FusedBottlenecks:
    """Return the fused stage of bottlenecks with batch norms.

    Raises:
        NotConverted: a block or one of its parts is unknown, or a library cannot be built.
    """
    modules = [stage.entry, *stage.blocks]
    check_stage(stage, _ALSO)
    for module in modules:
        middle = _CONV if hasattr(module, "conv2") else _MIXER
        check_parts(module, {**_COMMON, **middle, **_ALSO[type(module)]}, CALLED)
    require_libraries("bottleneck")
    return FusedBottlenecks([FusedConvBottleneck(module, dtype) for module in modules])  # pyright: ignore[reportArgumentType]


def _mixer(mixer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the operation of a token mixer, or the mixer to be called."""
    row = MIXERS.get(type(mixer))
    if row is None or parts_unsupported_reason(mixer, row.seats) is not None:
        return CalledMixer(mixer, dtype)
    require_libraries(row.library)
    return row.make(mixer, dtype)


def batch_scale(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a batch norm in evaluation, in fp64.

    Raises:
        NotConverted: it has no running statistics.
    """
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        raise NotConverted("its batch norm has no running statistics")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        gamma, beta = norm.weight.detach().double(), norm.bias.detach().double()
        scale, shift = gamma * scale, gamma * shift + beta
    return scale, shift


def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return filters and shift of a convolution with its batch norm folded in, in fp64.

    w' = w * gamma / sqrt(var + eps);  shift = beta - mean * gamma / sqrt(var + eps)

    Raises:
        NotConverted: the norm has no running statistics.
    """
    scale, shift = batch_scale(norm)
    return conv.weight.detach().double() * scale[:, None, None, None], shift


def window_of(conv: nn.Conv2d) -> Window:
    """Return the window of a convolution.

    Raises:
        NotConverted: it has a bias, another padding, groups, dilation or unequal sides.
    """
    check_conv(conv)
    side = conv.kernel_size[0]
    if conv.bias is not None or conv.padding != (side // 2, side // 2):
        raise NotConverted("its convolution has a bias or another padding than half its side")
    return Window(side, conv.stride[0])


def pack(weight: Tensor, window: Window, dtype: torch.dtype) -> PackedFilters:
    """Pack filters whose outputs fill whole vectors.

    Raises:
        NotConverted: they do not.
    """
    if len(weight) % LANES:
        raise NotConverted(f"{len(weight)} channels do not fill whole vectors")
    return pack_filters(weight, window, dtype)
