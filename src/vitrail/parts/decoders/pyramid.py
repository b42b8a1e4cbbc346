"""Pyramid levels of any backbone as normalised channels-first maps, for the decoders of dense tasks."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.parts.backbone import Features
from vitrail.parts.embeddings import NormStep
from vitrail.parts.token_mixers.class_attention import ClassAttention

NormFactory = Callable[..., nn.Module]
"""`(channels, eps=...) -> norm` over the last dimension, such as `nn.LayerNorm`."""


class NoLevelNorm(nn.Identity):
    """Levels as the stages leave them (ResNet with an FPN, SegFormer)."""


class PyramidMaps(nn.Module):
    """Levels of a backbone with several scales, each with a norm of its own.

    maps[l] = norm_l(pyramid[levels[l]]), from (B, H, W, C) to (B, C, H, W)

    The norms are those of Swin's dense models ("Swin Transformer", section 4.2 and its code), which normalise each
    stage output and drop the last norm of the classifier.

    Args:
        levels: index in `Features.pyramid` of each level, finest first.
        channels: channels of each level.
        strides: pixels per cell side of each level.
        norm: factory of the norms.
        eps: addend to the variance.

    Example:
        >>> maps = PyramidMaps([0, 1], [8, 16], [4, 8])
        >>> pyramid = torch.randn(1, 6, 5, 8), torch.randn(1, 3, 3, 16)
        >>> [tuple(m.shape) for m in maps(Features(torch.zeros(1, 9, 16), None, pyramid))]
        [(1, 8, 6, 5), (1, 16, 3, 3)]
    """

    def __init__(
        self,
        levels: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        norm: NormFactory = nn.LayerNorm,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.levels, self.channels, self.strides = tuple(levels), tuple(channels), tuple(strides)
        self.norms = nn.ModuleList(norm(width, eps=eps) for width in channels)

    def forward(self, features: Features) -> list[Tensor]:
        """Return the maps, finest first."""
        chosen = zip(self.norms, self.levels, strict=True)
        return [norm(features.pyramid[i]).permute(0, 3, 1, 2) for norm, i in chosen]


class SimplePyramidMaps(nn.Module):
    """Four levels from the one map of a plain ViT: strides s / 4, s / 2, s and 2 s for tokens of stride s.

    Two transposed convolutions, one, none, and a max pooling. "Exploring Plain Vision Transformer Backbones for Object
    Detection" (ViTDet), section 3. It reads the normalised tokens; a norm follows on each level.

    Args:
        dim: channels C of the tokens; the levels have C / 4, C / 2, C, C.
        stride: pixels per cell side.
        norm: factory of the norms.
        eps: addend to the variance.

    Example:
        >>> from vitrail.grid import Grid
        >>> features = Features(torch.randn(1, 16, 8), Grid(3, 5, 1), ())
        >>> [tuple(m.shape[1:]) for m in SimplePyramidMaps(8, 16)(features)]
        [(2, 12, 20), (4, 6, 10), (8, 3, 5), (8, 2, 3)]
    """

    def __init__(self, dim: int, stride: int, norm: NormFactory = nn.LayerNorm, eps: float = 1e-6):
        super().__init__()
        half, quarter = max(dim // 2, 1), max(dim // 4, 1)
        self.channels = (quarter, half, dim, dim)
        self.strides = (max(stride // 4, 1), max(stride // 2, 1), stride, 2 * stride)
        self.ups = nn.ModuleList([Upsample(dim, half, quarter, eps=eps), Upsample(dim, half, eps=eps)])
        self.norms = nn.ModuleList(norm(width, eps=eps) for width in self.channels)

    def forward(self, features: Features) -> list[Tensor]:
        """Return the maps, finest first."""
        cells = features.grid.cells(features.tokens)  # (B, H, W, C)
        maps = [self.ups[0](cells), self.ups[1](cells), cells, halve(cells)]
        return [norm(each).permute(0, 3, 1, 2) for norm, each in zip(self.norms, maps, strict=True)]


class Upsample(nn.Module):
    """Transposed convolutions, each doubling the sides of a `(B, H, W, C)` map; norm and GELU between them.

    Args:
        dims: channels before the first and after each.
        eps: addend to the variance of the norm.
    """

    def __init__(self, *dims: int, eps: float = 1e-6):
        super().__init__()
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(dims))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for width in dims[1:-1])

    def forward(self, cells: Tensor) -> Tensor:
        """Upsample."""
        for i, layer in enumerate(self.layers):
            cells = layer(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            if i < len(self.norms):
                cells = nn.functional.gelu(self.norms[i](cells))
        return cells


def halve(cells: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 cells of a `(B, H, W, C)` map; an odd last row or column stays alone.

    Example:
        >>> halve(torch.tensor([[1.0, 4.0, 5.0], [2.0, 3.0, 0.0]])[None, ..., None])[0, ..., 0].tolist()
        [[4.0, 5.0]]
    """
    pooled = nn.functional.max_pool2d(cells.permute(0, 3, 1, 2), 2, ceil_mode=True)
    return pooled.permute(0, 2, 3, 1)


def pyramid_maps(
    backbone: nn.Module, in_channels: int = 3, image_size: int = 224, norm: NormFactory = nn.LayerNorm
) -> PyramidMaps | SimplePyramidMaps:
    """Return the maps that decoders read from a backbone: `pyramid_maps(...)(backbone(images))`.

    A backbone of several scales gets one map for each scale, from the last stage of that scale, and its last norm is
    replaced by the identity: each level has its own. A backbone of one scale keeps it and gets a simple feature
    pyramid. Stages that end with a norm of their own (PVT v2) get no second one. Last stages that change
    the class token alone (CaiT, XCiT) are removed.

    Args:
        backbone: `images -> Features`; changed in place.
        in_channels: channels of its images.
        image_size: side of the images that it is built for.
        norm: factory of the norms; `NoLevelNorm` for none.

    Raises:
        VitrailError: its tokens have no places in the image.
    """
    drop_class_stages(backbone)
    features = shapes_of(backbone, in_channels, image_size)
    last: Any = getattr(backbone, "norm", None)
    eps = getattr(last, "eps", None) or 1e-6
    scales = {tuple(level.shape[1:3]): i for i, level in enumerate(features.pyramid)}
    if any(h != w for h, w in scales):
        raise VitrailError(
            "The tokens of this backbone have no places in the image, so it has no maps for a dense task.\n"
            "Take one whose features are maps, such as swin, convnext, pvt_v2 or vit."
        )
    strides = [round(image_size / h) for h, _ in scales]
    norm = NoLevelNorm if ends_with_norms(backbone) else norm
    if len(scales) == 1:
        return SimplePyramidMaps(features.tokens.shape[2], strides[0], norm, eps)
    backbone.norm = nn.Identity()
    channels = [features.pyramid[i].shape[3] for i in scales.values()]
    return PyramidMaps([*scales.values()], channels, strides, norm, eps)


def drop_class_stages(backbone: nn.Module) -> None:
    """Remove last stages of class attention, which no cell depends on."""
    stages: Any = getattr(backbone, "stages", ())
    while len(stages) > 1 and _moves_the_class_token_only(stages[-1]):
        del stages[-1]


def ends_with_norms(backbone: nn.Module) -> bool:
    """Return whether every stage ends with a norm."""
    stages: Any = getattr(backbone, "stages", ())
    return bool(stages) and all(isinstance(stage.exit, NormStep) for stage in stages if hasattr(stage, "exit"))


def shapes_of(backbone: nn.Module, in_channels: int, image_size: int) -> Features:
    """Return the features of one image as tensors on the meta device: shapes without computation."""
    tensors = [*backbone.parameters(), *backbone.buffers()]
    memo: dict[int, Any] = {id(x): torch.empty_like(x, device="meta") for x in tensors}
    memo |= {id(x): nn.Parameter(memo[id(x)]) for x in backbone.parameters()}
    with torch.no_grad(), torch.device("meta"):
        return deepcopy(backbone, memo).eval()(torch.empty(1, in_channels, image_size, image_size))


def _moves_the_class_token_only(stage: Any) -> bool:
    mixers = [getattr(block, "token_mixer", None) for block in getattr(stage, "blocks", ())]
    return bool(mixers) and all(isinstance(mixer, ClassAttention) for mixer in mixers)
