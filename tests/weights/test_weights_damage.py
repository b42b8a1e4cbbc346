"""A flipped bit in a checkpoint: found if the format has checksums, wherever in the file it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vitrail.errors import DataError
from vitrail.weights.checkpoint_io import read_checkpoint

TENSORS = {"a.weight": torch.arange(35.0).reshape(5, 7), "b.bias": torch.ones(3), "n": torch.tensor(4)}


def save_npz(tensors: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **{name: value.numpy() for name, value in tensors.items()})


def save_deflated(tensors: dict[str, Tensor], path: Path) -> None:
    np.savez_compressed(path, **{name: value.numpy() for name, value in tensors.items()})


KINDS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "w.pt": torch.save,
    "w.npz": save_npz,
    "deflated.npz": save_deflated,
}


def same(path: Path) -> bool:
    found = read_checkpoint(path).tensors
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_is_detected_or_harmless(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    KINDS[name](TENSORS, path)
    whole, found = path.read_bytes(), 0
    for place in range(0, len(whole), 1 + len(whole) // 400):
        harmed = bytearray(whole)
        harmed[place] ^= 1 << place % 8
        path.write_bytes(harmed)
        try:
            assert same(path), place
        except DataError as error:
            found += 1
            assert name in str(error)
    assert found > 40


@pytest.mark.parametrize("name", ["w.pt", "w.npz"])
def test_one_bit_of_a_number_is_named_by_its_record(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    KINDS[name](TENSORS, path)
    whole = path.read_bytes()
    place = whole.index(TENSORS["a.weight"].numpy().tobytes()) + 60
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(DataError, match=r"data/0|a\.weight"):
        read_checkpoint(path)


def test_a_record_marked_as_a_folder_is_refused(tmp_path: Path) -> None:
    """One bit in the list of records, outside all checksums, and PyTorch's reader gives memory as it finds it."""
    path = tmp_path / "w.pt"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    place = whole.rindex(b"w/data/0") - 8  # the attributes stand eight bytes before the name
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    with pytest.raises(DataError, match="data/0 is marked as a folder"):
        read_checkpoint(path)


def test_an_array_longer_than_its_header_is_refused(tmp_path: Path) -> None:
    """The zip reader compares checksums at the end of a record, so the end is always reached."""
    path = tmp_path / "w.npz"
    save_npz({"a": torch.arange(35.0).reshape(5, 7)}, path)
    path.write_bytes(path.read_bytes().replace(b"'shape': (5, 7)", b"'shape': (5, 6)"))
    with pytest.raises(DataError, match="the array a"):
        read_checkpoint(path)


def test_a_file_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(tmp_path / "w.pt")
