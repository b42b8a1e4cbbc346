"""Figures that explain a model, as images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks, mixing_blocks
from vitrail.explain.chart import distance_chart
from vitrail.explain.distance import attention_distance
from vitrail.explain.figure_grid import FigureGrid
from vitrail.explain.figures import blocks_scene, draw_heat, heads_scene, influence_scene
from vitrail.explain.heatmap import Heatmap, heatmap
from vitrail.explain.image_grid import PAPER, panel
from vitrail.explain.options import AUTO, ExplainOptions, resolve_options
from vitrail.explain.overlay import seen
from vitrail.explain.weight_figures import bias_figure, filters_figure, positions_figure
from vitrail.parts.model import Model
from vitrail.parts.positions import LearnedPosition, RelativePositionBias
from vitrail.tasks.inference import device_of

Images = Sequence[Image.Image] | Tensor
"""PIL images, or a prepared batch `(B, C, Y, X)`."""


DISTANCE = "Attention distance"
"""Name of the one weight figure that is measured on images."""


def prepare(model: Model, images: Images) -> Tensor:
    """Return a preprocessed batch on the model's device; a preprocessed batch is only moved."""
    if isinstance(images, Tensor):
        return images.to(device_of(model))
    if not images:
        raise VitrailError("There are no images to look at; give at least one.")
    transform = EvalTransform(model.preprocess)
    return torch.stack([transform(image) for image in images]).to(device_of(model))


def attention_overlays(model: Model, images: Images, method: str = "auto", **look: Any) -> list[Image.Image]:
    """Draw a heatmap over each preprocessed image.

    Args:
        model: a model from `create_model` or `load_model`.
        images: PIL images, or a prepared batch `(B, C, Y, X)`.
        method: `maps`, `rollout`, `influence`, `saliency`, or `auto`: rollout if there are maps, else saliency.
        look: `block`, `head`, `query` as in `options.ExplainOptions`; one that the method does not take is refused.

    Returns:
        One image each, of the preprocessed size, or a whole multiple of it if that is small.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, image_size=80)
        >>> attention_overlays(model, [Image.new("RGB", (200, 100))])[0].size
        (160, 160)
    """
    batch = prepare(model, images)
    return _draw(model, batch, heatmap(model, batch, ExplainOptions(method, **look)))


def overview(model: Model, images: Images) -> dict[str, Image.Image]:
    """Draw the figures of a report: heatmaps of these images, then figures of the weights.

    Args:
        model: a model from `create_model` or `load_model`.
        images: PIL images, or a prepared batch `(B, C, Y, X)`; eight are plenty.

    Returns:
        Images by title, in the order in which to show them.
    """
    batch = prepare(model, images)
    figures = scenes(model, batch[:1]) | portraits(model, batch)
    return {"Where it looks": strip(model, batch)} | {title: figure.image() for title, figure in figures.items()}


def strip(model: Model, images: Tensor, look: ExplainOptions = AUTO) -> Image.Image:
    """Draw each image with its heatmap under it."""
    found = heatmap(model, images, look)
    plain, hot = seen(images, model.preprocess), _draw(model, images, found)
    columns = min(len(plain), 8)
    rows = [tile for i in range(0, len(plain), columns) for tile in _two_rows(plain, hot, i, columns)]
    return panel(rows, columns, found.title, side=150)


def _draw(model: Model, images: Tensor, found: Heatmap) -> list[Image.Image]:
    return [draw_heat(image, found, i) for i, image in enumerate(seen(images, model.preprocess))]


def _two_rows(above: list[Image.Image], below: list[Image.Image], start: int, columns: int) -> list[Image.Image]:
    gap = [Image.new("RGB", above[0].size, PAPER)] * (start + columns - len(above))  # the last row may be short
    return above[start : start + columns] + gap + below[start : start + columns] + gap


def scenes(model: Model, images: Tensor, look: ExplainOptions = AUTO) -> dict[str, FigureGrid]:
    """Draw one image (a batch of one) block by block, and head by head if there are heads.

    Rollout and saliency describe the whole model and give no such figure, nor does a model without mixing blocks.
    """
    if look == AUTO:
        look = ExplainOptions(_block_method(model))
    look = resolve_options(model, look)
    if look.method == "maps":
        return {"Heads": heads_scene(model, images, look), "Block by block": blocks_scene(model, images, look)}
    return {"Block by block": influence_scene(model, images, look)} if look.method == "influence" else {}


def _block_method(model: Model) -> str:
    """Return the method that shows single blocks; saliency if the model has no mixing blocks."""
    if attending_blocks(model):
        return "maps"
    return "influence" if mixing_blocks(model) else "saliency"


def portraits(model: Model, images: Tensor) -> dict[str, FigureGrid]:
    """Draw the figures of the weights; attention distances are measured on `images`."""
    drawings: dict[str, tuple[bool, Callable[[], FigureGrid]]] = {
        DISTANCE: (
            bool(attending_blocks(model)),
            lambda: distance_chart(attention_distance(model, images), (images.shape[-2], images.shape[-1])),
        ),
        "Position similarity": (_has(model, LearnedPosition), lambda: positions_figure(model)),
        "Position bias": (_has(model, RelativePositionBias), lambda: bias_figure(model)),
        "Patch filters": (_has(model, nn.Conv2d), lambda: filters_figure(model)),
    }
    return {title: draw() for title, (there, draw) in drawings.items() if there}


def _has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())
