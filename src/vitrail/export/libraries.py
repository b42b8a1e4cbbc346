"""Optional libraries of the exporters and runtimes."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from vitrail.errors import VitrailError

_NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "triton": ("onnx", "onnxscript", "onnxruntime"),
    "executorch": ("executorch",),
}


def check_libraries(target: str) -> None:
    """Check that the libraries that write and run a format are installed, before anything is computed.

    Raises:
        VitrailError: one is missing.

    Example:
        >>> check_libraries("pt2")
    """
    missing = [name for name in _NEEDED.get(target, ()) if find_spec(name) is None]
    if missing:
        raise VitrailError(f"{missing[0]} is not installed. Install it with: pip install {' '.join(missing)}")


def required(name: str, package: str | None = None) -> ModuleType:
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
