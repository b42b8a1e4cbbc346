"""Heatmaps through all blocks for a viewer: attention rollout of every query at once, and Grad-CAM of the prediction.

A row is a map over cells, as one byte a cell: `level / 255 * maximum of the row`. Row 0 is that of the prediction
(the input of the head); a rollout has a row for each token of the last grid after it, so that pointing at a patch needs
no further request.
"""

import base64
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks, backbone_of, mixing_blocks, name_of
from vitrail.explain.gradcam import gradcam
from vitrail.explain.maps import attention_maps, no_maps
from vitrail.explain.overlay import seen
from vitrail.explain.rollout import compose, reading
from vitrail.parts.backbone import Classifier
from vitrail.parts.model import Model
from vitrail.tasks import data_url
from vitrail.tasks.inference import device_of, evaluating

MOST_LEVELS = 4_000_000
"""Cells of all rows of one response; a model with more sends the row of the prediction alone."""


def heat_kinds(model: nn.Module) -> list[str]:
    """List the heatmaps that a model has: `rollout` of softmax attention, `gradcam` of classifiers.

    Example:
        >>> from vitrail.models import create_model
        >>> heat_kinds(create_model("vit_tiny_patch16_224", depth=1))
        ['rollout', 'gradcam']
        >>> heat_kinds(create_model("poolformer_s12", dims=(8, 16), depths=(1, 1)))
        ['gradcam']
    """
    kinds: list[str] = []
    if not hasattr(model, "preprocess"):
        return kinds
    try:
        if attending_blocks(model):
            kinds.append("rollout")
        if isinstance(model, Classifier) and mixing_blocks(model):
            kinds.append("gradcam")
    except VitrailError:  # no backbone
        pass
    return kinds


def encode_image_heat(model: Model, image: Image.Image, kind: str) -> dict[str, Any]:
    """Run a model on an image and return a heatmap as plain values, see the description of the module.

    Args:
        model: a model of images with a backbone.
        image: the image; the model's own preprocessing is applied.
        kind: `rollout` or `gradcam`.

    Raises:
        VitrailError: the model has no such heatmap.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, image_size=32)
        >>> response = encode_image_heat(model, Image.new("RGB", (40, 40)), "rollout")
        >>> response["grid"], response["rows"], decode_heat(response).shape  # prediction, class token, patches
        ([2, 2], 6, torch.Size([6, 2, 2]))
    """
    if kind not in heat_kinds(model):
        raise no_maps(model) if kind == "rollout" else VitrailError(f"{name_of(model)} has no heatmap {kind}.")
    images = EvalTransform(model.preprocess)(image)[None].to(device_of(model))
    facts, rows = _KINDS[kind](model, images)
    maxima = rows.amax((1, 2))
    levels = (rows / maxima.clamp_min(1e-30)[:, None, None] * 255).round().to(torch.uint8)
    return {
        "kind": kind,
        "image": list(images.shape[-2:]),
        "seen": data_url.encode(seen(images, model.preprocess, least=1)[0]),
        **facts,
        "grid": list(rows.shape[1:]),
        "rows": len(rows),
        "maxima": maxima.tolist(),
        "levels": base64.b64encode(levels.cpu().numpy().tobytes()).decode(),
    }


def decode_heat(heat: dict[str, Any]) -> Tensor:
    """Return the rows of a response, `(rows, H, W)`: the readable counterpart of the viewer's decoder."""
    levels = torch.frombuffer(bytearray(base64.b64decode(heat["levels"])), dtype=torch.uint8)
    return levels.float().view(heat["rows"], *heat["grid"]) / 255 * torch.tensor(heat["maxima"])[:, None, None]


def _rollout(model: Model, images: Tensor) -> tuple[dict[str, Any], Tensor]:
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        features = model.features(images) if isinstance(model, Classifier) else backbone_of(model)(images)
    first, last = maps[0], maps[-1]
    read = reading(model, features)
    with torch.no_grad():
        rows = first.over_cells(compose(maps, read[:, None], features.grid)[0])
        if last.grid.tokens * rows[0].numel() <= MOST_LEVELS:
            rows = torch.cat([rows, first.over_cells(compose(maps)[0])])
    queries = {"grid": [last.grid.h, last.grid.w], "prefix": last.grid.prefix, "cell": list(last.cell)}
    return {"cell": list(first.cell), "queries": queries if len(rows) > 1 else None}, rows


def _gradcam(model: Model, images: Tensor) -> tuple[dict[str, Any], Tensor]:
    place, values = gradcam(model, images)
    return {"cell": list(place.cell), "queries": None, "block": place.block.address}, values


_KINDS: dict[str, Callable[[Any, Tensor], tuple[dict[str, Any], Tensor]]] = {"rollout": _rollout, "gradcam": _gradcam}
