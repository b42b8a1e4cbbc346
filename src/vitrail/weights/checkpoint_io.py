"""Reading checkpoints without running them: safetensors, `torch.load(weights_only=True)`, and npz without objects.

A file is judged by its first bytes, never by its name. What it claims is checked against what it is before memory is
taken for it, and every way in which it can be wrong ends in a `DataError` that names the file and the reason. Damage
within the numbers is found where the format has checksums: in zip files (PyTorch's since 1.6, npz) and in our model
folders, by their manifest. PyTorch's old format has none, nor has safetensors.
"""

import argparse
import json
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
from vitrail.weights.pickle_scan import refuse_code
from vitrail.weights.unwrap import unwrap
from vitrail.weights.zip_check import check_archive, check_records, read_npz

# In the order in which a folder is searched.
_NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
HEADER = "vitrail"  # the entry of a safetensors header in which we say what the tensors do not
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".tar")

# What PyTorch's reader raises where bytes are not what they should be.
_DAMAGE = (RuntimeError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_DAMAGE += (EOFError, struct.error, MemoryError, SafetensorError)


@dataclass
class Checkpoint:
    """Tensors as some library named them, and what is known of them.

    Args:
        tensors: by their key.
        origin: the file, folder or hub id (with its commit) that they came from.
        notes: what was done to get at them, such as "took 'model_ema'".
        config: what the header of the file, or a `config.json` beside it, says of the model.
        file: the file (or index of shards), where it is one.
    """

    tensors: dict[str, Tensor]
    origin: str
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def stated(self) -> str | None:
        """The model's name, where the config states one in timm's or our field."""
        name = self.config.get("variant") or self.config.get("architecture")
        return name if isinstance(name, str) else None

    @property
    def folder(self) -> Path | None:
        """The folder that the file lies in."""
        return self.file and self.file.parent


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint from a file, a folder or the hub.

    Args:
        source: a file (safetensors, PyTorch, npz), a folder that holds one (`model.safetensors`, a sharded index,
            `pytorch_model.bin`, or a single file of a known ending), or `hf:org/name@revision`.

    Raises:
        VitrailError: nothing is there.
        DataError: the file is damaged, lies about its size, or needs code to run.
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
    return Checkpoint(tensors, origin, notes, _config(file), file)


def read_file(path: Path) -> Mapping[str, Any]:
    """Read one file, whatever its name says; nested dictionaries come as they are."""
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], Mapping[str, Any]]:
    """Choose how to read a file by its first bytes."""
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
    """Say whether a file begins with the length of a header and the header's brace."""
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
    """Read what PyTorch saved, as data only; a file that needs code is refused by the names it wants."""
    refuse_code(path)
    try:
        # Training scripts store their arguments beside the weights; a Namespace is a bag of values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old protocols: the file is read or refused, there is nothing to do
            value = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read as data only: {first[:300]}") from error
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
    raise VitrailError(
        f"{folder} holds no checkpoint: no {', no '.join(_NAMES[::2])}, no file ending in {', '.join(_ENDINGS)}."
    )


def _read_shards(index: Path) -> Mapping[str, Any]:
    """Read the shards that an index lists; every one must lie beside it."""
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
    """Return what is said of the model in a safetensors file of ours, else in a `config.json` beside the file."""
    try:
        said = _header(file)
        config = json.loads((file.parent / "config.json").read_bytes() if said is None else said)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return {}  # a hint that is not there; the weights speak for themselves
    return config if isinstance(config, dict) else {}


def _header(file: Path) -> str | None:
    """Return what we wrote into the header of a safetensors file, where it is one and has it."""
    with open(file, "rb") as stream:
        head = stream.read(16)
    if not _starts_like_safetensors(head, file.stat().st_size):
        return None
    with safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get(HEADER)
