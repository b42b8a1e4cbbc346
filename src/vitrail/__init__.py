"""Vitrail: the Transformer series for images, under the same few verbs.

Example:
    >>> import vitrail
    >>> vitrail.list_models("swin_tiny*")[:1]
    ['swin_tiny_patch4_window7_224']
    >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=10)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names at the door and the room that each lives in; a room is opened when its name is first asked for, so that
# `import vitrail` does not pay for torch.
_DOOR = {
    "list_models": "vitrail.models",
    "create_model": "vitrail.models",
    "load_weights": "vitrail.weights.load",
    "load_model": "vitrail.weights.folder",
    "save_model": "vitrail.weights.folder",
    "predict": "vitrail.inference.predict",
    "evaluate": "vitrail.inference.evaluate",
    "optimize": "vitrail.fused.optimize",
    "attention_maps": "vitrail.explain.maps",
    "Grid": "vitrail.grid",
    "Preprocess": "vitrail.preprocess",
}

__all__ = [
    "Grid",
    "Preprocess",
    "attention_maps",
    "create_model",
    "evaluate",
    "list_models",
    "load_model",
    "load_weights",
    "optimize",
    "predict",
    "save_model",
]

if TYPE_CHECKING:
    from vitrail.explain.maps import attention_maps
    from vitrail.fused.optimize import optimize
    from vitrail.grid import Grid
    from vitrail.inference.evaluate import evaluate
    from vitrail.inference.predict import predict
    from vitrail.models import create_model, list_models
    from vitrail.preprocess import Preprocess
    from vitrail.weights.folder import load_model, save_model
    from vitrail.weights.load import load_weights


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'vitrail' has no attribute '{name}'")
    return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted([*_DOOR, "__version__"])
