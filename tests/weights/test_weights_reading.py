"""Reading checkpoints: accepted files, and files refused without running them."""

import argparse
import collections
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitrail.errors import DataError, VitrailError
from vitrail.weights.checkpoint_io import read_checkpoint
from vitrail.weights.pickle_scan import imports

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.zeros(2)}


class Canary:
    """A pickle that makes a file when it is loaded the unsafe way."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def same(got, expected=STATE):
    return got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in expected)


# Accepted files.


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pth", "pytorch_model.bin", "old.tar", "arrays.npz"])
def test_each_kind_of_file_is_read_alone_and_in_its_folder(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(STATE, path)
    elif name.endswith(".npz"):
        np.savez(path, **{key: value.numpy() for key, value in STATE.items()})
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=not name.endswith(".tar"))
    assert same(read_checkpoint(path).tensors)
    assert same(read_checkpoint(tmp_path).tensors)


def test_content_decides_the_format_not_the_file_name(tmp_path):
    save_file(STATE, tmp_path / "weights.pth")
    assert same(read_checkpoint(tmp_path / "weights.pth").tensors)


def test_shards_are_put_together(tmp_path):
    for number, key in enumerate(STATE):
        save_file({key: STATE[key]}, tmp_path / f"model-{number}.safetensors")
    weight_map = {key: f"model-{number}.safetensors" for number, key in enumerate(STATE)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(read_checkpoint(tmp_path).tensors)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", 7])
def test_a_shard_must_be_next_to_its_index(shard, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(DataError, match="does not lie beside it"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("wrapped", "note"),
    [
        ({"model": STATE, "epoch": 3}, "took 'model'"),
        ({"state_dict": {f"module.{key}": value for key, value in STATE.items()}}, "took 'module.' off every key"),
        ({"model": {}, "model_ema": STATE}, "took 'model_ema'"),
        (
            {"student": {"x": torch.ones(1)}, "teacher": {f"_orig_mod.{k}": v for k, v in STATE.items()}},
            "took 'teacher'",
        ),
        ({"model": {"state_dict": STATE}, "args": argparse.Namespace(lr=0.1)}, "took 'state_dict'"),
        (collections.OrderedDict(STATE, step=7), None),
    ],
)
def test_nested_state_dicts_are_unwrapped_and_reported(wrapped, note, tmp_path):
    torch.save(wrapped, tmp_path / "a.pth")
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert same(checkpoint.tensors)
    assert note in checkpoint.notes if note else not checkpoint.notes


def test_big_endian_and_column_first_arrays_are_the_same_numbers(tmp_path):
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez(tmp_path / "a.npz", big=array, column=np.asfortranarray(array.astype("<f8")))
    tensors = read_checkpoint(tmp_path / "a.npz").tensors
    assert torch.equal(tensors["big"], STATE["head.weight"]) and torch.equal(
        tensors["column"], STATE["head.weight"].double()
    )


def test_the_name_in_the_config_is_kept(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "deit_tiny_patch16_224"}')
    assert read_checkpoint(tmp_path).stated == "deit_tiny_patch16_224"


# Refused files.


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_by_name(new_format, protocol, tmp_path):
    canary = tmp_path / "ran"
    values = {"model": STATE, "config": Canary(canary)}
    torch.save(values, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
    with pytest.raises(DataError, match=r"posix\.mkdir|nt\.mkdir"):
        read_checkpoint(tmp_path / "a.pth")
    assert not canary.exists()


def test_a_plain_pickle_is_refused_by_name(tmp_path):
    canary = tmp_path / "ran"
    (tmp_path / "a.bin").write_bytes(pickle.dumps([Canary(canary)]))
    with pytest.raises(DataError, match="mkdir"):
        read_checkpoint(tmp_path / "a.bin")
    assert not canary.exists()


def test_a_name_put_together_from_memory_is_found(tmp_path):
    """Protocol 4 takes module and name from the stack, where they may come out of the memo."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([os.mkdir, "posix", os.rmdir], protocol=4))
    assert {name.rpartition(".")[2] for name in imports(tmp_path / "a.pkl")} == {"mkdir", "rmdir"}


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "a.pth")


def test_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Canary(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="objects"):
        read_checkpoint(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * (80 << 20))
    with pytest.raises(DataError, match="zip bomb"):
        read_checkpoint(tmp_path / "a.npz")


def test_an_array_that_claims_more_than_its_file_is_refused(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue() + b"\0" * 16)
    with pytest.raises(DataError, match="claims"):
        read_checkpoint(tmp_path / "a.npz")


def safetensors(header: object, data: bytes = b"") -> bytes:
    """Write a safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start: int, end: int, shape=(1,)) -> dict:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


HOSTILE = {
    "empty": b"",
    "huge header": struct.pack("<Q", 1 << 60) + b'{"a":1}' + b"\0" * 64,
    "header longer than the file": struct.pack("<Q", 500) + b'{"a":1}',
    "not json": safetensors(b"{nonsense}"),
    "overlapping": safetensors({"a": entry(0, 4), "b": entry(0, 4)}, b"\0" * 4),
    "hole": safetensors({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12),
    "beyond the end": safetensors({"a": entry(0, 400, (100,))}, b"\0" * 4),
    "shape does not fit": safetensors({"a": entry(0, 4, (7,))}, b"\0" * 4),
    "negative": safetensors({"a": entry(-4, 0)}, b"\0" * 4),
    "overflow": safetensors({"a": entry(0, 4, (1 << 40, 1 << 40))}, b"\0" * 4),
    "trailing bytes": safetensors({"a": entry(0, 4)}, b"\0" * 400),
    "unknown dtype": safetensors({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "deep json": safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "web page": b"<html><body>404</body></html>",
    "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "picture": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "broken zip": b"PK\x03\x04" + b"\0" * 40,
    "broken pickle": b"\x80\x02}q\x00(X\x05",
    "pickle of a number": pickle.dumps(7, protocol=2),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_file_is_a_data_error_that_names_it(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy", "npz"])
def test_a_file_cut_off_anywhere_is_a_data_error(kind, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    if kind == "safetensors":
        save_file(STATE, whole)
    elif kind == "npz":
        with open(whole, "wb") as file:
            np.savez(file, **{key: value.numpy() for key, value in STATE.items()})
    else:
        torch.save(STATE, whole, _use_new_zipfile_serialization=kind == "pth")
    content = whole.read_bytes()
    for percent in range(0, 100, 3):
        cut.write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(DataError):
            read_checkpoint(cut)


def test_a_zip_without_tensors_lists_its_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"readme\.txt"):
        read_checkpoint(tmp_path / "a.zip")


def test_a_file_without_tensors_lists_its_content(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="'epoch', 'lr'"):
        read_checkpoint(tmp_path / "a.pth")


def test_missing_and_ambiguous_files(tmp_path):
    with pytest.raises(VitrailError, match="nothing at"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(VitrailError, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save(STATE, tmp_path / name)
    with pytest.raises(VitrailError, match=r"2 checkpoints \(a\.pth, b\.pth\)"):
        read_checkpoint(tmp_path)
