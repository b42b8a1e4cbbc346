"""The manifest of a model folder: a checksum of every file and of every tensor, versions and command.

`write_manifest` writes it last; `verify` reads it first and names the file, and in a weight file the tensor, that
changed.
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, uint8

from vitrail import __version__
from vitrail.atomic_io import write_file
from vitrail.errors import DataError

MANIFEST = "manifest.json"
LISTED = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md")
FORMAT_VERSION = 1


def write_manifest(folder: str | Path, command: str | None = None, inputs: str | None = None) -> dict[str, Any]:
    """Write `manifest.json` for the files of a model in `folder`, and return it; other files there are not listed.

    Call it after an intended change (a better README, other labels), so that the folder loads again. The command and
    the files of an earlier manifest are kept.

    Args:
        folder: a model folder.
        command: the command line that made the weights.
        inputs: name of the file of the model's inputs, such as `tokenizer.json`.
    """
    folder, names = Path(folder), [*LISTED, *filter(None, [inputs])]
    if (folder / MANIFEST).exists():
        earlier = _parse(folder / MANIFEST)
        command = earlier.get("command") if command is None else command
        names += [name for name in earlier["files"] if Path(name).name == name]
    manifest = {
        "format_version": FORMAT_VERSION,
        "files": {name: file_facts(folder / name) for name in dict.fromkeys(names) if (folder / name).exists()},
        "tensors": tensor_checksums(folder / "model.safetensors"),
        "versions": {"vitrail": __version__, "torch": version("torch"), "python": platform.python_version()},
        "platform": platform.platform(),
        "command": command,
    }
    manifest["checksum"] = own_checksum(manifest)
    write_file(folder / MANIFEST, dump_json(manifest))
    return manifest


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file of a model folder against its manifest, and return the manifest.

    Args:
        folder: a model folder.

    Raises:
        DataError: a file is missing or changed; the message names it, and the tensors that differ.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, stated in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{folder} is not whole: {name} is missing.\nCopy the whole folder again.")
        found = file_facts(path)
        if found != stated:
            raise DataError(_difference(folder, name, stated, found, manifest["tensors"]))
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check it against its own checksum."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} has no {MANIFEST}, so it cannot be checked.\n"
            "A model folder is written by vitrail.save_model or `vitrail convert --to vitrail`."
        )
    manifest = _parse(path)
    if manifest.get("checksum") != own_checksum(manifest) or path.read_bytes() != dump_json(manifest):
        raise DataError(f"{path} changed since it was written: its own checksum differs.\nCopy the folder again.")
    if manifest["format_version"] > FORMAT_VERSION:
        raise DataError(
            f"{folder} has format version {manifest['format_version']}, this vitrail reads up to {FORMAT_VERSION}.\n"
            "It was written by a newer vitrail: take that version here (in its clone, pip install .)."
        )
    if "config.json" not in manifest["files"] or "model.safetensors" not in manifest["files"]:
        raise DataError(
            f"{path} lists no config.json or no model.safetensors.\nCopy the whole folder again and seal it."
        )
    return manifest


def file_facts(path: Path) -> dict[str, Any]:
    """Return size and sha256 of a file."""
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def tensor_checksums(path: Path) -> dict[str, dict[str, Any]]:
    """Return dtype, shape and sha256 of each tensor in a safetensors file, by name."""
    facts = {}
    with safe_open(path, framework="pt") as file:
        for name in sorted(file.keys()):
            facts[name] = tensor_facts(file.get_tensor(name))
    return facts


def tensor_facts(tensor: Tensor) -> dict[str, Any]:
    """Return dtype, shape and the sha256 of the little-endian bytes of a tensor."""
    raw = tensor.detach().cpu().contiguous().flatten().view(uint8).numpy()
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(raw.data).hexdigest(),
    }


def dump_json(value: object) -> bytes:
    """Serialise to JSON: indented UTF-8 with a final newline.

    Example:
        >>> dump_json({"b": 1})
        b'{\\n  "b": 1\\n}\\n'
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _difference(folder: Path, name: str, stated: dict, found: dict, tensors: dict) -> str:
    """Describe how a file differs from the manifest, down to the tensor."""
    if found["size"] != stated["size"]:
        what = f"{name} has {found['size']:,} bytes, the manifest states {stated['size']:,}"
    else:
        what = f"{name} changed since it was written (sha256 {found['sha256'][:12]}..., not {stated['sha256'][:12]}...)"
    lines = [f"{folder} is damaged: {what}."]
    if name == "model.safetensors":
        lines.append(_changed_tensors(folder / name, tensors))
        lines.append("Copy the folder again, or train or convert it again.")
    else:
        lines.append(
            "Copy the folder again; if you changed it on purpose, seal it: vitrail.weights.manifest.seal(folder)"
        )
    return "\n".join(lines)


def _changed_tensors(path: Path, stated: dict) -> str:
    """List the tensors whose bytes differ from the manifest."""
    try:
        found = tensor_checksums(path)
    except (SafetensorError, OSError) as error:
        return f"Not one tensor can be read: its header is broken ({error})."
    changed = [name for name in stated if found.get(name) != stated[name]]
    if not changed:
        return "Every tensor is as it was: the damage is in the header."
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"Changed: {', '.join(changed[:3])}{more}."


def _parse(path: Path) -> dict[str, Any]:
    """Parse a manifest and check that its required fields exist."""
    try:
        manifest = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}).\nCopy the folder again.") from error
    shapes = {"format_version": int, "files": dict, "tensors": dict}
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(key), kind) for key, kind in shapes.items()):
        raise DataError(f"{path} is not a manifest of vitrail: it needs {', '.join(shapes)}.\nCopy the folder again.")
    return manifest


def own_checksum(manifest: dict[str, Any]) -> str:
    """Return the sha256 of a manifest without its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(dump_json(rest)).hexdigest()
