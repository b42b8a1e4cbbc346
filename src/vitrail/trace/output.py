"""Description of the end of a model: norm, pooling, head, most probable classes."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vitrail.parts.heads import FirstToken
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.trace import views
from vitrail.trace.frame import TraceFrame
from vitrail.trace.layers import layer_formula
from vitrail.trace.record import Call
from vitrail.trace.walk import Walk


def head(walk: Walk, call: Call, names: list[str]) -> TraceFrame:
    """Describe a classification head; `call` is the call of the whole head."""
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    pool = next((each for each in call.children if each.path.endswith("pool")), None)
    text = ""
    if pool is not None:
        text = (
            "The class token alone is read."
            if isinstance(pool.module, FirstToken)
            else "The mean over the cells is read."
        )
    y: Any = call.y
    found = []
    if isinstance(y, Tensor) and y.ndim == 2 and len(y) and y.shape[1] > 1:
        lines.append(f"p = softmax(z), {y.shape[1]} classes")
        labels, values = views.top_classes(y[0], names)
        found.append(views.bars(labels, values, "most probable classes"))
    return walk.frame(call, "Head", lines, text, found)


def final_norm(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe the norm after the last stage."""
    if isinstance(call.module, nn.Identity):
        return
    line = layer_formula(call)
    yield walk.frame(call, "Final norm", [line] if line else [])


def known_names(model: Model) -> list[str]:
    """Return the class names of a model, its own or those of the published data set; empty for any other module."""
    classes = getattr(getattr(model, "config", None), "num_classes", 0)
    return list(class_names(model, classes, None)) if classes and hasattr(model, "metadata") else []
