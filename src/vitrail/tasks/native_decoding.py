"""Decoding of language and translation models in native code, made once for each model."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from vitrail.errors import VitrailError
from vitrail.fused.optimize import optimize
from vitrail.parts.model import Model

_MADE: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()
"""Optimized form of each model that generates, with the state of the weights that it was made from."""


def decoder_of(model: Model, decode: str, context: int, notify: Callable[[str], None] = lambda line: None) -> Model:
    """Return the model that decodes: the optimized form, or the model itself.

    Args:
        model: a language model or a translation model.
        decode: `torch` for the model itself; `auto` for the optimized form in fp32 if there is one; or its precision.
        context: tokens of a window.
        notify: receives the reason if `auto` takes the model itself.

    Raises:
        VitrailError: the optimized form was asked for by its precision, and there is none.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("gpt2", dim=8, depth=1, num_heads=1, vocab_size=9, max_length=8).eval()
        >>> decoder_of(model, "torch", 8) is model
        True
    """
    if decode == "torch" or (hasattr(model, "runtime") and decode in ("auto", "fp32")):
        return model
    if hasattr(model, "runtime"):
        raise VitrailError(f"--decode {decode} needs the weights; an exported file runs in fp32. Use the model folder.")
    try:
        return _optimized(model, "fp32" if decode == "auto" else decode, context)
    except VitrailError as error:
        if decode != "auto":
            raise
        notify(f"decoding in PyTorch: {str(error).splitlines()[0]}")
        return model


def _optimized(model: Model, precision: str, context: int) -> Model:
    state = (precision, id(model.inputs), *((each.data_ptr(), _version(each)) for each in model.state_dict().values()))
    found = _MADE.get(model)
    if found is None or found[0] != state:
        found = state, optimize(model, precision)  # pyright: ignore[reportArgumentType]
        _MADE[model] = found
    fast = found[1]
    if context > fast.capacity:
        raise VitrailError(
            f"the optimized {model.variant} has positions for {fast.capacity} tokens, not for {context}."
        )
    return fast


def _version(tensor: Any) -> int:
    return -1 if tensor.is_inference() else tensor._version
