"""A whole model in its fast form: it keeps its own precision, and is compiled already."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.kernels.tracing import is_tracing
from vitrail.parts.backbone import Classifier, Features
from vitrail.shapes import Image


class OptimizedClassifier(Classifier):
    """A classifier that `vitrail.optimize` has made.

    Attributes:
        precision: that of its weights and products: `fp32`, `bf16` or `int8`.
        unconverted: what stayed as it was and why, and how often.
    """

    precision: str
    unconverted: dict[str, int]


class NativeClassifier(OptimizedClassifier):
    """A classifier with compiled parts, which read memory: nobody can follow what they do.

    `torch.compile` runs it as it is; who traces, exports or transforms it is told to take another model.
    """

    def forward(self, images: Image) -> Tensor:
        """Return fp32 logits `(B, K)`."""
        return _by_itself(super().forward, images)

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid, in the precision that they are handed on in."""
        return _by_itself(super().features, images)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Refuse other weights: most of a form's own are in no state dict, and would stay without a word."""
        raise VitrailError(
            "The weights of a fast form are laid out for this machine, and cannot be replaced.\n"
            "Load others into the model that it was made from, and optimize that again."
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Name the class that the form's was made of: pickle finds no class that `_compiled_kind` made."""
        how: Any = super().__reduce_ex__(max(2, protocol))
        kind = type(self)
        if kind is NativeClassifier or how[1] != (kind,):
            return how
        return _blank, kind.__bases__[1:], *how[2:]


def compiled(model: Classifier) -> NativeClassifier:
    """Make a copied model, of whatever class, a compiled classifier.

    The object stays and its class changes, so a forward of one's own, hooks and all that hangs on a model stay with it.
    """
    fast = model
    fast.__class__ = _compiled_kind(type(model))
    assert isinstance(fast, NativeClassifier)
    return fast


@cache
def _compiled_kind(kind: type[Classifier]) -> type[NativeClassifier]:
    return NativeClassifier if kind is Classifier else type(f"Compiled{kind.__name__}", (NativeClassifier, kind), {})


def _blank(kind: type[Classifier]) -> NativeClassifier:
    """Return a form of a class, to be filled by pickle."""
    own = _compiled_kind(kind)
    return own.__new__(own)


def in_own_precision(device: str, compute: Callable[..., Any], images: Image) -> Any:
    """Compute without autocast: a form's precision is its own.

    Example:
        >>> layer, x = torch.nn.Linear(4, 2), torch.ones(1, 4)
        >>> with torch.autocast("cpu"):
        ...     layer(x).dtype, in_own_precision("cpu", layer, x).dtype
        (torch.bfloat16, torch.float32)
    """
    if not torch.is_autocast_enabled(device):
        return compute(images)
    with torch.autocast(device, enabled=False):
        return compute(images)


def _by_itself(compute: Callable[..., Any], images: Image) -> Any:
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return _past_the_compiler(compute, images)
    if is_tracing():
        raise VitrailError(
            "A fast form is compiled for this machine, and cannot be traced, exported or transformed.\n"
            "Do that to the model that it was made from."
        )
    return in_own_precision("cpu", compute, images)


@torch.compiler.disable(reason="a fast form is compiled for this machine already")
def _past_the_compiler(compute: Callable[..., Any], images: Image) -> Any:
    return _by_itself(compute, images)
