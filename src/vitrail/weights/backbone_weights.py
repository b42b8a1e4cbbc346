"""Weights of a classifier for the backbone of a dense model, which names its backbone in its config."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitrail.models import create_model
from vitrail.parts.model import Model

LAST_NORM = "backbone.norm."


def fills_backbone_only(model: nn.Module, ours: Mapping[str, Tensor]) -> bool:
    """Return whether a model is dense and a checkpoint, with our keys, is that of a classifier: no head fits."""
    if not isinstance(getattr(getattr(model, "config", None), "backbone", None), str):
        return False
    heads = {key for key in model.state_dict() if key.startswith("head.")}
    return heads.isdisjoint(ours) and any(key.startswith("backbone.") for key in ours)


def classifier_of(model: Model) -> Model:
    """Return a headless classifier with the backbone of a dense model."""
    c = model.config
    own = {**dict(c.backbone_config), "num_classes": 0, "in_channels": c.in_channels, "image_size": c.preprocess.size}
    return create_model(c.backbone, **own)


def move_backbone(classifier: nn.Module, model: nn.Module) -> tuple[int, int]:
    """Copy the backbone's tensors; return how many were copied, and how many tensors of the model were not.

    The last norm becomes that of the coarsest level, if the levels have norms.
    """
    theirs, ours = classifier.state_dict(), model.state_dict()
    taken = {key: value for key, value in theirs.items() if key.startswith("backbone.") and key in ours}
    levels: Any = getattr(getattr(model.head, "maps", None), "norms", ())
    for name in ("weight", "bias"):
        key, level = LAST_NORM + name, f"head.maps.norms.{len(levels) - 1}.{name}"
        if key in theirs and key not in ours and level in ours and theirs[key].shape == ours[level].shape:
            taken[level] = theirs[key]
    model.load_state_dict(taken, strict=False)
    return len(taken), len(ours) - len(taken)
