"""C3: files that would run code, read other files or take memory if they were loaded the usual way."""

import builtins
import functools
import importlib
import io
import os
import pickle
import runpy
import shutil
import socket
import subprocess
import sys
import time
import webbrowser
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.export.metadata import external_files
from vitrail.export.runtime import open_exported
from vitrail.inference.model_loading import find_model
from vitrail.weights.checkpoint_io import read_checkpoint
from vitrail.weights.folder import load_model

SEEN: list[str] = []
WATCHED = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "os.mkdir"}
ACTIVE = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if ACTIVE and event in WATCHED:
        SEEN.append(event)


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> Iterator[None]:
    sys.addaudithook(hook)  # it cannot be removed, so it is silent outside of `refused`
    yield


def refused(load: Callable[[Path], Any], path: Path) -> None:
    """Load a hostile file: an error of ours in little time, and nothing that it asks for happens."""
    global ACTIVE
    SEEN.clear()
    began, ACTIVE = time.perf_counter(), True
    try:
        with pytest.raises(VitrailError):
            load(path)
    finally:
        ACTIVE = False
    assert not SEEN and time.perf_counter() - began < 5
    assert not list(path.parent.glob("ran*"))


class Call:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def calls(mark: str) -> dict[str, Any]:
    """Return payloads; each leaves a mark if it runs."""
    command = f"open({mark!r}, 'w')"
    return {
        "system": Call(os.system, f"touch {mark}"),
        "popen": Call(subprocess.Popen, ["touch", mark]),
        "mkdir": Call(os.mkdir, mark),
        "eval": Call(eval, command),
        "exec": Call(exec, command),
        "open": Call(open, mark, "w"),
        "import": Call(importlib.import_module, "antigravity"),
        "builtins import": Call(builtins.__import__, "antigravity"),
        "runpy": Call(runpy.run_path, mark),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
        "browser": Call(webbrowser.open, "file:///"),
        "rmtree": Call(shutil.rmtree, mark),
        "partial": Call(functools.partial, os.mkdir, mark),
        "nested": Call(list, [Call(os.mkdir, mark)]),
        "getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "hub": Call(torch.hub.load, "a/b", "c"),
        "torch load": Call(torch.load, mark),
        "numpy": Call(np.load, mark, None, True),
    }


@pytest.mark.parametrize("name", calls(""))
def test_no_pickle_calls_anything(name: str, tmp_path: Path) -> None:
    payload = {"model": {"weight": torch.zeros(2)}, "args": calls(str(tmp_path / "ran"))[name]}
    torch.save(payload, tmp_path / "zip.pt")
    torch.save(payload, tmp_path / "legacy.tar", _use_new_zipfile_serialization=False)
    for protocol in (0, 4):
        (tmp_path / f"{protocol}.bin").write_bytes(pickle.dumps(payload["args"], protocol=protocol))
    for path in sorted(tmp_path.iterdir()):
        refused(read_checkpoint, path)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def npy(shape: tuple[int, ...], body: bytes = b"") -> bytes:
    head = str({"descr": "<f8", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.encode() + body


def objects() -> bytes:
    held = io.BytesIO()
    np.save(held, np.array([Call(os.mkdir, "ran")], dtype=object), allow_pickle=True)
    return held.getvalue()


ARCHIVES: dict[str, dict[str, bytes]] = {
    "zip slip": {"../../ran": b"x", "a.npy": npy((1,), b"\0" * 8)},
    "absolute name": {"/tmp/ran": b"x"},
    "bomb": {"a.npy": npy((1 << 20,), b"\0" * (8 << 20)), "b.npy": npy((1 << 50,))},
    "huge header": {"a.npy": npy((1 << 60, 1 << 60))},
    "objects": {"a.npy": objects()},
    "script": {"archive/code/__torch__.py": b"import os", "archive/constants.pkl": b"\x80\x02K\x01."},
    "program": {"archive/models/model.json": b"{}", "archive/data/weights/weights.pt": b"\x80\x02K\x01."},
    "broken pickle": {"archive/data.pkl": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."},
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_archive_leaves_its_place_or_fills_memory(name: str, tmp_path: Path) -> None:
    refused(read_checkpoint, zipped(tmp_path / "a.npz", ARCHIVES[name]))


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_with(location: str, wrap: Callable[[bytes], bytes] = lambda tensor: message(5, tensor)) -> bytes:
    tensor = message(13, message(1, b"location") + message(2, location.encode()))
    return message(7, wrap(tensor))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b", "..\\secret", "link", "", ".."])
def test_an_onnx_file_reads_only_files_beside_it(location: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "a.onnx").write_bytes(onnx_with(location))
    refused(open_exported, tmp_path / "a.onnx")
    hidden = onnx_with(location, lambda tensor: message(1, message(5, message(6, message(5, tensor)))))
    (tmp_path / "a.onnx").write_bytes(hidden)  # in a subgraph of a node
    assert external_files(tmp_path / "a.onnx") == [location]
    refused(open_exported, tmp_path / "a.onnx")


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, message(7, b"\xff" * 9), b"<?xml version='1.0'?>"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_no_exported_file_is_trusted(content: bytes, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if suffix == ".onnx" else "openvino")
    (tmp_path / f"a{suffix}").write_bytes(content)
    refused(open_exported, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".pt2", ".pte"])
def test_formats_that_can_hold_code_are_not_opened(suffix: str, tmp_path: Path) -> None:
    torch.save({"a": Call(os.mkdir, str(tmp_path / "ran"))}, tmp_path / f"a{suffix}")
    refused(find_model, tmp_path / f"a{suffix}")


CONFIGS = {
    "code": b'{"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"}',
    "depth": b"[" * 100_000,
    "variant": b'{"format_version": 1, "variant": "../../evil", "config": {}}',
    "own file": b'{"format_version": 1, "variant": "evil", "config": {}, "architecture_file": "evil.py"}',
    "no object": b"[]",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_folder_brings_code(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / 'ran')!r})\n")
    (folder / "config.json").write_bytes(CONFIGS[name])
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for load in (load_model, find_model):
        refused(load, folder)
