"""The cache: entries are whole or absent, and leftovers are removed."""

import os
import time
from pathlib import Path

import pytest

from vitrail.cache import ABANDONED, beside, written


def age(path: Path) -> Path:
    os.utime(path, (time.time() - 2 * ABANDONED,) * 2)
    return path


def test_leftovers_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    young, old = tmp_path / ".other.1234", tmp_path / ".other.5678"
    finished = tmp_path / "finished"
    for path in (young, old, finished):
        path.write_bytes(b"half")
    age(old), age(finished)
    with written(tmp_path / "pixels") as file:
        file.write(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1234", "finished", "pixels"]


def test_leftover_folders_are_removed_with_their_files(tmp_path: Path) -> None:
    old = tmp_path / ".library.so.abcd"
    old.mkdir()
    (old / "object").write_bytes(b"half")
    age(old)
    with pytest.raises(RuntimeError), beside(tmp_path / "library.so") as folder:
        (folder / "object").write_bytes(b"half")
        assert list(tmp_path.iterdir()) == [folder] and folder.name.startswith(".library.so.")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
