"""Table 1 of the Swin paper, and its models at full and at quick size."""

from typing import Any

from vitrail.models import create_model
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess

PUBLISHED = {
    "vit_base_patch16_384": (86.0, 55.4, 85.9),
    "vit_large_patch16_384": (307.0, 190.7, 27.3),
    "swin_base_patch4_window7_224": (88.0, 15.4, 278.1),
    "swin_base_patch4_window12_384": (88.0, 47.0, 84.7),
}
"""Millions of parameters, GFLOPs (multiply-adds) and images per second of the paper."""


def build(name: str, quick: bool) -> Model:
    """Build a model with random weights: speed does not depend on them."""
    if not quick:
        return create_model(name).eval()
    small: dict[str, Any] = {"dim": 16, "preprocess": Preprocess(32), "num_heads": 2, "depth": 1}
    if name.startswith("swin"):
        small |= {"depths": (1, 1), "num_heads": (2, 2)}
        del small["depth"]
    return create_model(name, **small).eval()
