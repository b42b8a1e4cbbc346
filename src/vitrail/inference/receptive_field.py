"""Receptive field by block: which input pixels a cell in the middle of the map depends on."""

from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.inference.flops import meta_inputs

_NOTHING = 1e-20
"""Gradient below this share of the largest one: what the masks of shifted windows let through, exp(-100)."""


class ReceptiveField(NamedTuple):
    """Receptive field of a block.

    Args:
        name: path of the block.
        rows: rows of pixels from the first to the last that the cell depends on.
        columns: the same for columns.
        image: rows and columns of the image.
    """

    name: str
    rows: int
    columns: int
    image: tuple[int, int]


def receptive_fields(model: nn.Module, size: int | tuple[int, int] | None = None) -> list[ReceptiveField]:
    """Measure the receptive field of the middle cell after each block, by the gradient of the pixels.

    The weights are those of the model, the image is noise: a pixel without any path to the cell has a gradient of
    exactly zero. Blocks are entries of lists named `blocks`.

    Args:
        model: an image model.
        size: side of the image, or rows and columns; by default the model's own.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("swin_tiny_patch4_window7_224", dim=8, depths=(2,), num_heads=(1,))
        >>> [(field.name[-8:], field.rows) for field in receptive_fields(model, 112)]
        [('blocks.0', 28), ('blocks.1', 56)]
    """
    model = model.eval()
    [probe] = meta_inputs(model, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.rand(probe.shape).requires_grad_()
    found: dict[str, tuple[Tensor, Any]] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name, module in model.named_modules():
            if name.split(".")[-2:-1] == ["blocks"]:
                hooks.callback(module.register_forward_hook(_keep(found, name), with_kwargs=True).remove)
        model(images)
        return [_field(name, images, *each) for name, each in found.items()]


def _keep(found: dict[str, tuple[Tensor, Any]], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        tokens = output[-1] if isinstance(output, tuple) and isinstance(output[-1], Tensor) else output
        values = [output] if isinstance(output, Tensor) else list(output)
        grid = next((each for each in (*values, *args, *named.values()) if isinstance(each, Grid)), None)
        found[name] = (tokens if isinstance(tokens, Tensor) else values[0], grid)

    return hook


def _field(name: str, images: Tensor, tokens: Tensor, grid: Grid | None) -> ReceptiveField:
    if tokens.ndim == 4:
        cell = tokens[0, :, tokens.shape[2] // 2, tokens.shape[3] // 2]
    else:
        h, w = (1, tokens.shape[1]) if grid is None or tokens.shape[1] != grid.tokens else (grid.h, grid.w)
        cell = tokens[0, tokens.shape[1] - h * w + (h // 2) * w + w // 2]
    weights = torch.linspace(0.5, 1.5, len(cell))
    [gradient] = torch.autograd.grad((cell * weights).sum(), images, retain_graph=True)
    reached = gradient[0].abs().sum(0)
    reached = reached > _NOTHING * reached.max()
    rows, columns = (reached.any(axis).nonzero().flatten() for axis in (1, 0))
    return ReceptiveField(
        name, int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1, (images.shape[2], images.shape[3])
    )
