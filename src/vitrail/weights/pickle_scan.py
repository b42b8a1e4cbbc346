"""List the imports of a pickle without running it."""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

from vitrail.errors import DataError
from vitrail.weights.zip_check import DAMAGED_ZIP

# Modules that `torch.load(weights_only=True)` accepts, plus `argparse.Namespace` of training scripts.
_DATA = ("torch", "torch._utils", "torch.storage", "torch.serialization", "collections", "_codecs", "argparse", "numpy")
_DATA_NAMES = {
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_qtensor"),
    *("_rebuild_parameter_with_state", "_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage", "_load_from_bytes"),
    *(
        "OrderedDict",
        "Counter",
        "defaultdict",
        "Size",
        "Tensor",
        "device",
        "dtype",
        "_get_layout",
        "encode",
        "Namespace",
    ),
    *("Parameter", "UntypedStorage", "TypedStorage", "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy"),
}


def check_imports(path: Path) -> None:
    """Raise an error that names the imports of a pickle other than plain data.

    This only improves the error message: `torch.load(weights_only=True)`, which follows, prevents code from running and
    does not depend on this scan.

    Raises:
        DataError: the pickle imports something that is not data.
    """
    wanted = sorted({name for name in imports(path) if not _is_data(name)})
    if not wanted:
        return
    shown = ", ".join(wanted[:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
    raise DataError(
        f"{path} is a pickle that runs code: to load it Python would import {shown}.\n"
        "We read data only. On a machine you can spare, and only if you trust the file, load it with its own library\n"
        "and save model.state_dict() with safetensors.torch.save_file; give us that file."
    )


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that the pickles in a PyTorch file refer to; damaged pickles end early."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".pkl"):
                        with archive.open(name) as file:
                            yield from _globals(file)
        else:
            with open(path, "rb") as file:
                while file.peek(1)[:1] in {b"\x80", b"("}:  # PyTorch's old format is several pickles, then the storages
                    yield from _globals(file)
    except (*DAMAGED_ZIP, IndexError, MemoryError):
        return  # damage is reported, with its reason, by the reader that comes next


def _globals(file) -> Iterator[str]:
    """Yield the names of one pickle: literal, or assembled from the preceding strings."""
    texts: list[str] = []
    memo: dict[object, str | None] = {}
    last: str | None = None  # the text that was pushed just now, if it was one
    for code, value, _ in pickletools.genops(file):
        if code.name in {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}:
            memo[len(memo) if code.name == "MEMOIZE" else value] = last
            continue
        if code.name in {"GLOBAL", "INST"}:
            yield str(value).replace(" ", ".", 1)
            last = None
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
            last = None
        elif code.name in {"GET", "BINGET", "LONG_BINGET"}:
            last = memo.get(value)
        else:
            last = value if isinstance(value, str) else None
        if last is not None:
            texts.append(last)


def _is_data(name: str) -> bool:
    """Return whether a dotted name is plain data."""
    module, _, leaf = name.rpartition(".")
    known = module in _DATA or module.startswith(("torch.", "numpy."))
    if module in ("builtins", "__builtin__"):
        return leaf in {"list", "dict", "set", "tuple", "int", "float", "str", "bool", "bytearray", "complex"}
    is_type = module == "torch" and (leaf.endswith("Storage") or leaf in _dtypes())
    is_numpy = module.startswith("numpy") and leaf in {"dtype", "scalar", "_reconstruct", "ndarray"}
    is_numpy |= module == "numpy.dtypes" and leaf.endswith("DType") and leaf != "ObjectDType"
    return known and (leaf in _DATA_NAMES or is_type or is_numpy)


def _dtypes() -> set[str]:
    """Return the names of PyTorch's dtypes."""
    import torch

    return {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
