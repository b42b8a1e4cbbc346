"""Build a model from its config, and report numbers that do not fit together or into memory."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from vitrail.errors import ResourceError, VitrailError


def build_checked(
    name: str,
    build: Callable[[Any], Any],
    config: Any,
    overrides: Mapping[str, Any],
    explain: Callable[[BaseException], str | None],
) -> Any:
    """Build a model.

    Args:
        name: name of the variant, for errors.
        build: function of its architecture.
        config: its config.
        overrides: fields that the user gave, for errors.
        explain: returns the line of the user's own file that raised an error, if it is one.

    Raises:
        VitrailError: the numbers do not fit together.
        ResourceError: the model does not fit into memory.
    """
    try:
        model = build(config)
    except VitrailError:
        raise
    except MemoryError as error:
        raise ResourceError(_too_large(name, overrides)) from error
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if "allocate" in str(error):
            raise ResourceError(_too_large(name, overrides)) from error
        numbers = f" with {overrides}" if overrides else ""
        raise VitrailError(f"Cannot build {name}{numbers}: {explain(error) or error}") from error
    if not isinstance(model, import_module("vitrail.parts.model").Model):  # imports torch, so not before
        raise VitrailError(f"Cannot build {name}: its build(config) returns a {type(model).__name__}, not a Model.")
    return model


def _too_large(name: str, overrides: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{key}={value}" for key, value in overrides.items() if isinstance(value, int | tuple))
    return f"{name} with {numbers or 'these numbers'} does not fit into memory. Take a smaller image_size or model."
