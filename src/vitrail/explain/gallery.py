"""Everything there is to see of a model, as pictures: for a report, or for the eye."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.chart import distance_chart
from vitrail.explain.distance import attention_distance
from vitrail.explain.heat import AUTO, Look, heat, settle
from vitrail.explain.layers import attending_layers
from vitrail.explain.overlay import seen
from vitrail.explain.panel import PAPER, panel
from vitrail.explain.portrait import bias_picture, filters_picture, positions_picture
from vitrail.explain.scene import draw_heat, heads_scene, influence_scene, layers_scene
from vitrail.parts.positions import LearnedPosition, RelativePositionBias

Pictures = Sequence[Image.Image] | Tensor
"""PIL pictures, or a prepared batch `(B, C, Y, X)`."""


TITLES = {
    "rollout": "Attention rollout: where the answer draws from, through all layers",
    "saliency": "Saliency: which pixels move the answer",
    "maps": "Attention of one layer",
    "influence": "Influence: which cells move one cell in one layer",
}
DISTANCE = "Attention distance"
"""Name of the one portrait that is measured on pictures."""


def prepare(model: Any, pictures: Pictures) -> Tensor:
    """Make a batch of pictures as the model wants them, where it wants them; a batch that is prepared stays."""
    first = next(model.parameters())
    if isinstance(pictures, Tensor):
        return pictures.to(first.device)
    if not pictures:
        raise VitrailError("There are no pictures to look at; give at least one.")
    transform = EvalTransform(model.preprocess)
    return torch.stack([transform(picture) for picture in pictures]).to(first.device)


def attention_overlays(model: Any, pictures: Pictures, method: str = "auto", **look: Any) -> list[Image.Image]:
    """Draw one heat map over each picture, as the model saw it.

    Args:
        model: a model from `create_model` or `load_model`.
        pictures: PIL pictures, or a prepared batch `(B, C, Y, X)`.
        method: `maps`, `rollout`, `influence`, `saliency`, or `auto`: rollout where there are maps, else saliency.
        look: `layer`, `head`, `query` as in `heat.Look`.

    Returns:
        One picture each, of the size that the model saw, or a whole multiple of it where that is small.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, image_size=80)
        >>> attention_overlays(model, [Image.new("RGB", (200, 100))])[0].size
        (160, 160)
    """
    images = prepare(model, pictures)
    found = heat(model, images, Look(method, **look))
    return [draw_heat(picture, found, i) for i, picture in enumerate(seen(images, model.preprocess))]


def overview(model: Any, pictures: Pictures) -> dict[str, Image.Image]:
    """Draw what a report shows of a model: where it looks in these pictures, then what it learned.

    Args:
        model: a model from `create_model` or `load_model`.
        pictures: PIL pictures, or a prepared batch `(B, C, Y, X)`; eight are plenty.

    Returns:
        Pictures by title, in the order in which to show them.
    """
    images = prepare(model, pictures)
    return {"Where it looks": strip(model, images)} | scenes(model, images[:1]) | portraits(model, images)


def strip(model: Any, images: Tensor, look: Look = AUTO) -> Image.Image:
    """Draw each picture with its heat under it."""
    look = settle(model, look)
    plain, hot = seen(images, model.preprocess), attention_overlays(model, images, **look._asdict())
    columns = min(len(plain), 8)
    rows = [tile for i in range(0, len(plain), columns) for tile in _two_rows(plain, hot, i, columns)]
    return panel(rows, columns, TITLES[look.method], side=150)


def _two_rows(above: list[Image.Image], below: list[Image.Image], start: int, columns: int) -> list[Image.Image]:
    gap = [Image.new("RGB", above[0].size, PAPER)] * (start + columns - len(above))  # the last row may be short
    return above[start : start + columns] + gap + below[start : start + columns] + gap


def scenes(model: Any, images: Tensor, look: Look = AUTO) -> dict[str, Image.Image]:
    """Draw one picture (a batch of one) layer by layer, and head by head where there are heads."""
    if attending_layers(model) and look.method != "influence":
        return {"Heads": heads_scene(model, images, look), "Layer by layer": layers_scene(model, images, look)}
    return {"Layer by layer": influence_scene(model, images, look)}


def portraits(model: Any, images: Tensor) -> dict[str, Image.Image]:
    """Draw what the model learned; distances are measured on `images`."""
    drawings: dict[str, tuple[bool, Callable[[], Image.Image]]] = {
        DISTANCE: (
            bool(attending_layers(model)),
            lambda: distance_chart(attention_distance(model, images)),
        ),
        "Position similarity": (_has(model, LearnedPosition), lambda: positions_picture(model)),
        "Position bias": (_has(model, RelativePositionBias), lambda: bias_picture(model)),
        "Patch filters": (_has(model, nn.Conv2d), lambda: filters_picture(model)),
    }
    return {title: draw() for title, (there, draw) in drawings.items() if there}


def _has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())
