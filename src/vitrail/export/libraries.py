"""Optional libraries of the exporters and runtimes."""

from importlib import import_module
from typing import Any

from vitrail.errors import VitrailError


def required(name: str, package: str | None = None) -> Any:
    """Return an optional library.

    Args:
        name: module.
        package: name to install, if it is another one.

    Raises:
        VitrailError: it is not installed.

    Example:
        >>> required("json").dumps([1])
        '[1]'
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = package or name
        raise VitrailError(f"{package} is not installed. Install it with: pip install {package}") from error
