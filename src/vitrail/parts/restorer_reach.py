"""Receptive field of a restoration model: how far a pixel's output depends on other pixels.

Counted from an edge of the input: a 3 x 3 convolution carries a change one pixel further, and window attention to the
next border of its windows. Blocks with and without shift alternate, so each of them adds half a window.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from vitrail.parts.model import Model


def reach(model: Model) -> int:
    """Return the largest distance, in input pixels and rounded up to windows, at which input changes an output pixel.

    For SwinIR with depths `d` and windows of `w` it is about `w / 2` for each block, and one or two windows more.

    Example:
        >>> from vitrail.models import create_model
        >>> import torch
        >>> with torch.device("meta"):
        ...     [reach(create_model(name)) for name in ("swinir_classical_x2", "swinir_light_x2")]
        [160, 104]
    """
    window = model.multiple
    far = max(_spread(model, towards_end) for towards_end in (False, True))
    return -(-far // window) * window


def _spread(model: Model, towards_end: bool) -> int:
    """Return how far a change at one side of the image gets."""
    far = _convolutions(model.shallow)
    backbone: Any = model.backbone
    for stage in backbone.stages:
        for block in stage.blocks:
            far = _next_border(far, *_windows(block, towards_end))
        far += _convolutions(stage.conv)
    return far + _convolutions(model.fuse) + _convolutions(model.head)


def _windows(block: Any, towards_end: bool) -> tuple[int, int]:
    """Return the side of a block's windows, and the place of their first border as seen from one side."""
    mixer = block.token_mixer
    window, shift = mixer.window_size, mixer.shift
    return window, (window - shift) % window if towards_end else shift


def _next_border(far: int, window: int, first: int) -> int:
    """Return the first border of windows at or after a place."""
    return first + -(-(far - first) // window) * window


def _convolutions(module: nn.Module) -> int:
    """Return how far the convolutions of a module carry a change; those after upsampling count in full."""
    return sum(layer.kernel_size[0] // 2 for layer in _layers(module))


def _layers(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
