"""Classes of optimized models: autocast, tracing, copies and pickles."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn, TypeVar

import torch

from vitrail.errors import VitrailError
from vitrail.kernels.tracing import is_tracing
from vitrail.parts.backbone import Classifier, Features
from vitrail.parts.model import Model
from vitrail.shapes import Image

Found = TypeVar("Found")


class OptimizedModel(Model):
    """Result of `vitrail.optimize`.

    Attributes:
        precision: of weights and GEMMs: `fp32`, `bf16` or `int8`.
        unconverted: number of modules that are not converted, by reason.
    """

    precision: str
    unconverted: dict[str, int]


class OptimizedClassifier(OptimizedModel, Classifier):
    """Optimized classifier."""


class NativeModel(OptimizedModel):
    """Model with native modules, which read memory and cannot be traced.

    `torch.compile` runs it as it is; tracing, export and functorch transforms raise an error. The class after it in the
    inheritance order computes.
    """

    def forward(self, images: Image, *others: object) -> Any:
        """Return fp32 outputs; `others` are further arguments of the model, such as the sizes of padded images."""
        inherited: Any = super()
        return run_alone(inherited.forward, images, *others)

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid, in the residual dtype."""
        inherited: Any = super()
        return run_alone(inherited.features, images)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> NoReturn:
        """Refuse other weights: most weights are packed and in no state dict, so they would silently stay."""
        raise VitrailError(
            "The weights of an optimized model are packed for this machine, and cannot be replaced.\n"
            "Load others into the model that it was made from, and optimize that again."
        )

    def __reduce_ex__(self, protocol: int) -> tuple[object, ...] | str:
        """Name the original class: pickle finds no class that `_compiled_kind` made."""
        how: Any = super().__reduce_ex__(max(2, protocol))
        kind = type(self)
        if kind is NativeClassifier or how[1] != (kind,):
            return how
        return _blank, kind.__bases__[1:], *how[2:]


class NativeClassifier(NativeModel, OptimizedClassifier):
    """Classifier with native modules."""


def compiled(model: Model) -> NativeModel:
    """Make a copied model, of any class, a native model.

    Only its class changes, so its own `forward`, hooks and attributes stay.
    """
    fast = model
    fast.__class__ = _compiled_kind(type(model))
    assert isinstance(fast, NativeModel)
    return fast


@cache
def _compiled_kind(kind: type[Model]) -> type[NativeModel]:
    if kind is Classifier:
        return NativeClassifier
    base = NativeClassifier if issubclass(kind, Classifier) else NativeModel
    made: Any = type(f"Compiled{kind.__name__}", (base, kind), {})
    return made


def _blank(kind: type[Model]) -> NativeModel:
    """Return an empty instance, to be filled by pickle."""
    own = _compiled_kind(kind)
    return own.__new__(own)


def in_own_precision(device: str, compute: Callable[..., Found], images: Image, *others: object) -> Found:
    """Compute without autocast: an optimized model has its own precision.

    Example:
        >>> layer, x = torch.nn.Linear(4, 2), torch.ones(1, 4)
        >>> with torch.autocast("cpu"):
        ...     layer(x).dtype, in_own_precision("cpu", layer, x).dtype
        (torch.bfloat16, torch.float32)
    """
    if not torch.is_autocast_enabled(device):
        return compute(images, *others)
    with torch.autocast(device, enabled=False):
        return compute(images, *others)


def run_alone(compute: Callable[..., Found], images: Image, *others: object) -> Found:
    """Run compiled operations outside of `torch.compile` and autocast.

    Raises:
        VitrailError: a program is traced, exported or transformed.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        from vitrail.fused.uncompiled import run_uncompiled  # loads torch._dynamo, which takes seconds

        return run_uncompiled(compute, images, *others)
    if is_tracing():
        raise VitrailError(
            "An optimized model is compiled for this machine, and cannot be traced, exported or transformed.\n"
            "Do that to the model that it was made from."
        )
    return in_own_precision("cpu", compute, images, *others)
