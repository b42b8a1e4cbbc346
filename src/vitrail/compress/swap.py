"""Attention of a whole model replaced by Linformer or Star-Transformers, on the grids of its image size."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vitrail.edits.edit import apply_edits
from vitrail.edits.swap_attention import SwapAttention, swappable_mixers
from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating


def swap_attention(model: Model, to: str, size: int) -> None:
    """Replace the attention of every block in place.

    Args:
        model: a model of images.
        to: `linformer` or `star`.
        size: rank, or rounds.

    Raises:
        VitrailError: it is no model of images, or has no attention that can be replaced.
    """
    names = swappable_mixers(model)
    if not names or getattr(model, "preprocess", None) is None:
        raise VitrailError(
            f"{model.variant or type(model).__name__} has no attention over images that can be replaced."
        )
    apply_edits(model, SwapAttention(to, size, attention_grids(model, names)))


def attention_grids(model: Model, names: list[str]) -> dict[str, tuple[int, int, int]]:
    """Return height, width and prefix of the grid of each mixer, for one image of the model's size."""
    grids: dict[str, tuple[int, int, int]] = {}

    def see(name: str, layout: object) -> None:
        if not isinstance(layout, Grid):
            raise VitrailError(f"{name} mixes {type(layout).__name__}, not the cells of an image.")
        grids[name] = (layout.h, layout.w, layout.prefix)

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, given: see(name, given[1])

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad(), evaluating(model):
            size, first = model.preprocess.size, next(model.parameters())
            model(torch.zeros(1, _channels(model), size, size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return {name: grids[name] for name in names if name in grids}


def _channels(model: nn.Module) -> int:
    return int(getattr(getattr(model, "config", None), "in_channels", 3))
