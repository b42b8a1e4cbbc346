"""Optimized models within `torch.compile`: they run as they are.

A module of its own, imported on first use: the decorator loads `torch._dynamo`, which takes longer than to optimize.
"""

from collections.abc import Callable

import torch

from vitrail.fused.optimized_model import Found, run_alone
from vitrail.shapes import Image


@torch.compiler.disable(reason="an optimized model is compiled for this machine already")
def run_uncompiled(compute: Callable[..., Found], images: Image, *others: object) -> Found:
    """Break the graph, and run the model."""
    return run_alone(compute, images, *others)
