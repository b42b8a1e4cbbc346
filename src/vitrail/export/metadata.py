"""The metadata of exported files, read without their runtimes: a JSON object under one key.

| field | holds |
|---|---|
| `task`, `variant`, `labels`, `preprocess` | for any reader: task and name of the model, class names, preprocessing |
| `inputs`, `outputs` | names and shapes of the tensors; a dimension is a number or a name |
| `config`, `model_inputs` | `config.json` of the model folder; file of its inputs (`tokenizer.json`) and its text |
"""

import json
import mmap
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

METADATA = "vitrail"
"""Key of the metadata in each file."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "executorch": ".pte", "triton": ""}
"""Suffix of the files of each target; a Triton repository is a folder."""

_PROPERTIES = 14
"""Field `metadata_props` of ONNX's `ModelProto`."""


def is_exported(path: str | Path) -> bool:
    """Return whether a path is an exported file, by its suffix.

    Example:
        >>> is_exported("no/such/file.onnx")
        False
    """
    return Path(path).suffix in [suffix for suffix in SUFFIXES.values() if suffix] and Path(path).is_file()


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Return the metadata of an ONNX or OpenVINO file, or None if it has none that can be read.

    Example:
        >>> read_metadata("no/such/file.onnx")
    """
    path = Path(path)
    try:
        text = _openvino(path) if path.suffix == SUFFIXES["openvino"] else _onnx(path)
        found = None if text is None else json.loads(text)
    except (OSError, ValueError, IndexError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _openvino(path: Path) -> str | None:
    found = re.search(rf'<{METADATA} value="([^"]*)"', path.read_text(encoding="utf-8"))
    return None if found is None else unescape(found[1])


def _onnx(path: Path) -> str | None:
    """Return the value of our key; the weights between the fields are not read."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for field, start, end in _fields(content, 0, len(content)):
            if field == _PROPERTIES:
                entry = {number: content[a:b] for number, a, b in _fields(content, start, end)}
                if entry.get(1) == METADATA.encode():
                    return entry.get(2, b"").decode()
    return None


def external_files(path: str | Path) -> list[str]:
    """Return the names of the files in which an ONNX file says that tensors are kept, whatever node they belong to.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        ...     _ = file.write(bytes([0x3A, 0])), file.flush()  # a graph without anything in it
        ...     external_files(file.name)
        []
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return sorted(set(_locations(content, 0, len(content), _MODEL)))


_TENSOR: dict[int, Any] = {13: {}}
_GRAPH: dict[int, Any] = {}
_NODE: dict[int, Any] = {5: {5: _TENSOR, 10: _TENSOR, 6: _GRAPH, 11: _GRAPH}}
_GRAPH.update({1: _NODE, 5: _TENSOR, 15: {1: _TENSOR, 2: _TENSOR}})
_MODEL: dict[int, Any] = {7: _GRAPH, 25: {7: _NODE}}
"""Fields of ONNX's messages on the way to tensors, by number: graph, nodes, attributes, subgraphs, functions."""


def _locations(content: Any, start: int, end: int, fields: dict[int, Any]) -> Iterator[str]:
    for number, a, b in _fields(content, start, end):
        if number not in fields:
            continue
        if fields is not _TENSOR:
            yield from _locations(content, a, b, fields[number])
            continue
        entry = {key: content[x:y] for key, x, y in _fields(content, a, b)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode(errors="replace")


def _fields(content: Any, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the fields of a protobuf message that hold bytes."""
    while place < end:
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 2:
            size, place = _varint(content, place)
            yield key >> 3, place, place + size
            place += size
        elif kind == 0:
            _, place = _varint(content, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind}")


def _varint(content: Any, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
