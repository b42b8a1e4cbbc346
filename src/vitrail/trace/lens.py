"""Logit lens: class scores after each block, as if the model ended there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Features
from vitrail.parts.model import Model
from vitrail.parts.stages import Stage
from vitrail.parts.two_scales import TwoScaleBackbone, join
from vitrail.tasks.inference import evaluating
from vitrail.trace.arrays import pack
from vitrail.trace.record import Call, grid_of, tensors
from vitrail.trace.views import top_classes
from vitrail.trace.walk import group_of


@torch.no_grad()
def logit_lens(model: Model, root: Call, names: Sequence[str] = (), top: int = 5) -> dict[str, Any]:
    """Return probabilities after each block: the rest of the model without its blocks, then norm and head.

    z_l = head(norm(rest(x_l)))

    A block adds to its input, so the path around all later blocks exists in every model of residual blocks; mergings of
    later stages are on that path and are applied. "interpreting GPT: the logit lens" (nostalgebraist, 2020). The last
    row is the model's own output. Blocks without such a path, because they change the grid or the channels, are left
    out.

    Args:
        model: a classifier with a backbone.
        root: its recorded calls.
        names: of the classes.
        top: number of classes to follow: the best of the output.

    Returns:
        `layers`, `labels`, and packed `values` `(layers, top)`; `own`, the best class and its probability of each
        layer; empty if there is no layer.
    """
    answer = root.y
    if answer is None or answer.ndim != 2 or answer.shape[1] < 2:
        return {}
    layers, scores = [], []
    with evaluating(model):
        for call in block_calls(root):
            logits = _after(model, root, call)
            if logits is not None:
                layers.append(group_of(call.path))
                scores.append(logits[0].float())
    if not scores:
        return {}
    probabilities = torch.stack(scores).softmax(-1)
    classes = answer[0].topk(min(top, answer.shape[1])).indices.tolist()
    own = [top_classes(each, names, 1) for each in scores]
    return {
        "layers": layers,
        "labels": [names[i] if i < len(names) else f"class {i}" for i in classes],
        "values": pack(probabilities[:, classes]),
        "logits": pack(torch.stack(scores)[:, classes]),
        "own": [[label[0], round(value.item(), 4)] for label, value in own],
    }


def block_calls(root: Call) -> list[Call]:
    """Return the calls of the blocks of a backbone, in order."""
    found = []
    for call in root.walk():
        parts = call.path.split(".")
        if len(parts) > 3 and parts[-2] == "blocks" and parts[-4] == "stages" and parts[0] == "backbone":
            found.append(call)
    return found


def _after(model: Model, root: Call, call: Call) -> Tensor | None:
    """Return logits of the path around all later blocks, or None if there is no such path."""
    norm = next((each for each in root.walk() if each.path == "backbone.norm"), None)
    last = next((each for each in root.walk() if each.path == "head"), None)
    grid = grid_of(call.args)
    if norm is None or norm.x is None or last is None or grid is None:
        return None
    stage = int(call.path.split(".")[2])
    backbone: Any = model.backbone
    streams = list(tensors(call.output))
    if isinstance(backbone, TwoScaleBackbone):
        grids = [each for each in call.args if isinstance(each, Grid)]
        pair: Any = (*streams, *grids)
        streams = [join(*pair)]
    for x in reversed(streams):
        end, at = _around(backbone.stages, stage, x, grid)
        wanted = grid_of(last.args)
        if end is not None and end.shape == norm.x.shape and at is not None:
            features = Features(backbone.norm(end), wanted or at, ())
            return model.head(features)
    return None


def _around(stages: nn.ModuleList, stage: int, x: Tensor, grid: Grid) -> tuple[Tensor | None, Grid | None]:
    """Return tokens after exit and entry of all later stages, without their blocks."""
    for number in range(stage, len(stages)):
        each: Any = stages[number]
        if not isinstance(each, Stage):
            return (x, grid) if number == len(stages) - 1 else (None, None)
        try:
            if number > stage:
                x, grid = each.entry(x, grid)
            x, grid = each.exit(x, grid)
        except (RuntimeError, AssertionError):
            return None, None
    return x, grid
