"""Read checkpoints without running code: safetensors, `torch.load(weights_only=True)`, and npz without objects.

The format is detected by the first bytes, never by the name. Declared sizes are checked against the file before memory
is allocated, and every fault raises a `DataError` with the file and the reason. Corrupt values are detected if the
format has checksums: zip files (PyTorch since 1.6, npz) and model folders, by their manifest. PyTorch's old format and
safetensors have none.
"""

import json
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vitrail.errors import DataError, VitrailError
from vitrail.parts.exported_file import outputs_alone
from vitrail.weights.folder import check_one_model
from vitrail.weights.peer_fields import timm_name
from vitrail.weights.pickle_scan import check_imports
from vitrail.weights.safe_types import safe_types
from vitrail.weights.unwrap import unwrap
from vitrail.weights.zip_check import check_archive, check_records, read_npz

# Search order in a folder.
_NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
HEADER = "vitrail"  # entry of a safetensors header for our metadata
_PROGRAMS = (".onnx", ".xml", ".pt2", ".pte")  # files of `vitrail export`
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".tar")

# Exceptions of PyTorch's reader for corrupt bytes.
_DAMAGE = (RuntimeError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_DAMAGE += (EOFError, struct.error, MemoryError, SafetensorError)


@dataclass
class RawCheckpoint:
    """State dict with the key names of its library, and checkpoint metadata.

    Args:
        tensors: by their key.
        origin: source of the tensors: file, folder or hub id (with its commit).
        notes: steps taken to find the tensors, such as "took 'model_ema'".
        config: metadata of the model, from the header of the file or a `config.json` in its folder.
        file: the file (or index of shards), if the source is one.
    """

    tensors: dict[str, Tensor]
    origin: str
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def stated(self) -> str | None:
        """Name of the model if the config has timm's or our field for it; timm's without the tag of its weights."""
        name = self.config.get("variant") or timm_name(self.config)
        return name if isinstance(name, str) else None

    @property
    def folder(self) -> Path | None:
        """Folder of the file."""
        return self.file and self.file.parent


def read_checkpoint(source: str | Path) -> RawCheckpoint:
    """Read a checkpoint from a file, a folder or the hub.

    Args:
        source: a file (safetensors, PyTorch, npz), a folder that holds one (`model.safetensors`, a sharded index,
            `pytorch_model.bin`, or a single file of a known ending), or `hf:org/name@revision`.

    Raises:
        VitrailError: nothing is there.
        DataError: the file is damaged, its declared size is wrong, or it needs code to run.
    """
    origin = str(source)
    if origin.startswith("hf:"):
        from vitrail.weights.hub import pinned, pull

        origin = pinned(origin)
        path = pull(origin)
    else:
        path = Path(source)
    if not path.exists():
        raise VitrailError(
            f"There is nothing at {source}.\nGive a file, a folder, or hf:org/name@revision for a model on the hub."
        )
    file = _choose(path) if path.is_dir() else path
    values = _read_shards(file) if file.name.endswith(".index.json") else read_file(file)
    tensors, notes = unwrap(values, str(file))
    return RawCheckpoint(tensors, origin, notes, _config(file), file)


def read_file(path: Path) -> Mapping[str, Any]:
    """Read one file, of any name; nested dictionaries are kept."""
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], Mapping[str, Any]]:
    """Choose the reader of a file by its first bytes."""
    if path.suffix in _PROGRAMS:
        raise outputs_alone(str(path), "weights are needed")
    with open(path, "rb") as file:
        head = file.read(16)
    size = path.stat().st_size
    if _starts_like_safetensors(head, size):
        return _read_safetensors
    if head[:2] == b"PK":
        return _read_zip
    if head[:1] == b"\x80":
        return _read_pickle
    if not head:
        raise DataError(f"{path} is empty (0 bytes). Copy or download it again.")
    known = {
        b"\x89HDF": "an HDF5 file",
        b"version https:": "a Git LFS pointer, not the file itself",
        b"<": "a web page",
    }
    what = next(
        (name for start, name in known.items() if head.startswith(start)), f"{size:,} bytes that start {head[:8]!r}"
    )
    raise DataError(f"{path} is no checkpoint: it is {what}.\nReadable: safetensors, PyTorch state dicts, npz.")


def _starts_like_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file begins with the length of a header and the header's brace."""
    if head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return length <= size or not head.startswith((b"\x80", b"PK"))


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    """Read a safetensors file after comparing its header with its length."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    if header > size - 8:
        raise DataError(
            f"{path} is cut off: its header claims {header:,} bytes, the file has {size:,}.\nCopy it again."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is damaged: {error}.\nCopy or download it again.") from error


def _read_zip(path: Path) -> Mapping[str, Any]:
    """Read a zip: PyTorch's, or NumPy's npz."""
    members = check_archive(path)
    if any(name.endswith("data.pkl") for name in members):
        check_records(path)
        return _read_pickle(path)
    if members and all(name.endswith(".npy") for name in members):
        return read_npz(path)
    shown = ", ".join(members[:3]) or "nothing"
    raise DataError(f"{path} is a zip, but neither PyTorch's nor NumPy's: it holds {shown}.\nUnpack it first.")


def _read_pickle(path: Path) -> Mapping[str, Any]:
    """Read a PyTorch pickle as data only; for a file that needs code, raise an error with the names that it imports."""
    check_imports(path)
    try:
        # Training scripts store arguments and metrics with the weights.
        with torch.serialization.safe_globals(safe_types()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old protocols: the file is read or refused, there is nothing to do
            value = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"to load it Python would call {named[1]}" if named else "its pickle needs operations beyond plain data"
        raise DataError(
            f"{path} cannot be read as data only: {what}.\nLoad it with its own library, if you trust the file, and "
            "save model.state_dict() with safetensors.torch.save_file; give that file."
        ) from error
    except _DAMAGE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is damaged or cut off: {first[:300]}.\nCopy or download it again.") from error
    if not isinstance(value, Mapping):
        raise DataError(
            f"{path} holds a {type(value).__name__}, not a state dict.\n"
            "Save model.state_dict() instead of the model, and give that file."
        )
    return value


def _choose(folder: Path) -> Path:
    """Find the one checkpoint of a folder."""
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found[:6])
        raise VitrailError(f"{folder} holds {len(found)} checkpoints ({names}). Give the path of one of them.")
    check_one_model(folder)
    raise VitrailError(
        f"{folder} holds no checkpoint: no {', no '.join(_NAMES[::2])}, no file ending in {', '.join(_ENDINGS)}."
    )


def _read_shards(index: Path) -> Mapping[str, Any]:
    """Read the shards that an index lists; all must be in its folder."""
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is no index of shards: it needs a 'weight_map' ({error}).") from error
    values: dict[str, Any] = {}
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise DataError(f"{index} names the shard {shard!r}, which does not lie beside it. Do not use this file.")
        if not (index.parent / shard).is_file():
            raise DataError(f"{index} names the shard {shard}, which is missing. Copy the whole folder again.")
        values.update(read_file(index.parent / shard))
    return values


def _config(file: Path) -> dict[str, Any]:
    """Return the metadata in the safetensors header if it is ours, else in a `config.json` in the file's folder."""
    try:
        said = _header(file)
        config = json.loads((file.parent / "config.json").read_bytes() if said is None else said)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return {}  # a hint that is not there; the weights speak for themselves
    return config if isinstance(config, dict) else {}


def _header(file: Path) -> str | None:
    """Return our entry of a safetensors header, or None."""
    with open(file, "rb") as stream:
        head = stream.read(16)
    if not _starts_like_safetensors(head, file.stat().st_size):
        return None
    with safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get(HEADER)
