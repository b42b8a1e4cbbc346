"""A state on disk is the old one or the new one, whatever happens while it is written."""

import errno
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrail.errors import DataError, ResourceError
from vitrail.training import checkpoint as room
from vitrail.training.checkpoint import (
    Checkpoint,
    SavedCheckpoint,
    TrainingProgress,
    check_state,
    list_states,
    newest_state,
    save_state,
)

_WATCHED = ("posix", "_io", "builtins", "safetensors")


def make(step: int) -> Checkpoint:
    torch.manual_seed(step)
    tables = {name: {"a|b": torch.randn(5, 3), "c": torch.randn(7)} for name in ("model", "optimizer")}
    tables["model"] |= {"bf16": torch.randn(4).bfloat16(), "count": torch.tensor(step), "flat": torch.randn(6, 4).T}
    return Checkpoint(TrainingProgress(step=step, seconds=0.1 * step, loss_sum=1 / 3), {"threads": 1}, tables)


def same(saved: SavedCheckpoint, state: Checkpoint) -> bool:
    read = {
        table: {name: torch.zeros_like(value) for name, value in each.items()} for table, each in state.tensors.items()
    }
    saved.read(read)
    tensors = all(
        torch.equal(value, state.tensors[table][name])
        for table, values in read.items()
        for name, value in values.items()
    )
    return tensors and saved.position == state.position and saved.facts == state.facts


def quiet(text: str) -> None:
    raise AssertionError(text)


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    save_state(tmp_path, make(3))
    found = newest_state(tmp_path, warn=quiet)
    assert found is not None and same(found, make(3))


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        save_state(tmp_path, make(step))
    assert [path.name for path in list_states(tmp_path)] == ["step-00000100", "step-00000010"]


def test_a_missing_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "nothing", warn=quiet) is None


class Death:
    """Ends the process, as a kill would, before or after the n-th call of the system that a save makes."""

    def __init__(self, at: int, kind: str):
        self.left, self.kind = at, kind

    def __call__(self, frame: Any, event: str, called: Any) -> None:
        if event == self.kind and _touches_the_disk(called):
            self.left -= 1
            if self.left < 0:
                os._exit(9)


def _touches_the_disk(called: Any) -> bool:
    module = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
    name = getattr(called, "__name__", "")
    return str(module).startswith(_WATCHED) and name in {
        *("open", "write", "flush", "close", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "truncate"),
        *("serialize_file", "__exit__"),
    }


def test_a_crash_at_any_call_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    """R2: try every call of the system that a save makes, and die there."""
    old, new = make(1), make(2)
    calls = 0
    for kind in ("c_call", "c_return"):
        for at in range(1000):
            folder = tmp_path / f"{kind}-{at}"
            save_state(folder, old)
            pid = os.fork()
            if pid == 0:
                sys.setprofile(Death(at, kind))
                save_state(folder, new)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            found = newest_state(folder, warn=quiet)
            assert found is not None and (same(found, old) or same(found, new)), (kind, at)
            assert code == 9 or same(found, new)
            save_state(folder, make(3))  # and leftovers do not disturb the next save
            assert not [path for path in folder.iterdir() if path.name.startswith(".")]
            shutil.rmtree(folder)
            if code == 0:
                break
            calls += 1
    assert calls > 40  # else the net has a hole and the test proves nothing


def full_disk_at(count: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [count]

    def call(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")
        return real(*args, **kwargs)

    return call


def test_a_full_disk_at_any_call_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: no space at each flush of a file."""
    save_state(tmp_path, make(1))
    failures = 0
    for count in range(100):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_disk_at(count, os.fsync))
            try:
                save_state(tmp_path, make(2))
                break
            except ResourceError as error:
                failures += 1
                assert "bytes free" in str(error) and error.exit_code == 4
        found = newest_state(tmp_path, warn=quiet)
        assert found is not None
        assert same(found, make(1)) or same(found, make(2))
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert failures > 5


def test_a_file_size_limit_leaves_the_old_state(tmp_path: Path) -> None:
    """R4: a limit that the kernel itself keeps (RLIMIT_FSIZE), in a process of its own."""
    save_state(tmp_path, make(1))
    big = make(2)
    big.tensors["model"]["big"] = torch.zeros(300_000)
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            save_state(tmp_path, big)
        except ResourceError as error:
            os._exit(error.exit_code)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    found = newest_state(tmp_path, warn=quiet)
    assert found is not None and same(found, make(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_checkpoint_larger_than_the_disk_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, make(1))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="bytes needed, 1,000 bytes free"):
        save_state(tmp_path, make(2))
    assert [path.name for path in list_states(tmp_path)] == ["step-00000001"]


def test_the_stated_need_is_within_two_percent_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Checkpoint(TrainingProgress(step=1), {}, {"model": {"w": torch.zeros(2_000_000)}})
    path = save_state(tmp_path, large)
    written = sum(file.stat().st_size for file in path.iterdir())
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError) as caught:
        save_state(tmp_path, large)
    stated = int(str(caught.value).split(": ")[1].split(" ")[0].replace(",", ""))
    assert written <= stated <= 1.02 * written


@pytest.mark.parametrize("damage", ["flip", "cut", "extend", "empty", "remove"])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_state_is_named_and_the_one_before_it_is_taken(tmp_path: Path, name: str, damage: str) -> None:
    save_state(tmp_path, make(1))
    path = save_state(tmp_path, make(2)) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    harmed = {"flip": content, "cut": content[:-3], "extend": content + b"\0", "empty": b""}
    path.write_bytes(harmed[damage]) if damage in harmed else path.unlink()
    said: list[str] = []
    found = newest_state(tmp_path, warn=said.append)
    assert found is not None and same(found, make(1))
    assert len(said) == 1 and "step-00000002" in said[0]


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    """torch's reader takes every safetensors file that it finds."""
    path = save_state(tmp_path, make(1))
    shutil.copy(path / "tensors.safetensors", path / "shard-1.safetensors")
    with pytest.raises(DataError, match=r"shard-1\.safetensors does not belong"):
        check_state(path)


def test_a_state_of_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FORMAT_VERSION", 1)
    monkeypatch.setattr(room._manifest, "__defaults__", (1,))
    path = save_state(tmp_path, make(1))
    monkeypatch.undo()
    with pytest.raises(DataError, match="is of format 1; this version of Vitrail reads 2"):
        check_state(path)


@pytest.mark.parametrize("change", ["name", "shape"])
def test_tensors_of_another_model_are_refused(tmp_path: Path, change: str) -> None:
    save_state(tmp_path, make(1))
    found = newest_state(tmp_path, warn=quiet)
    assert found is not None
    table = {"other": torch.zeros(7)} if change == "name" else {"c": torch.zeros(8)}
    with pytest.raises(DataError, match="does not fit this run"):
        found.read({"model": table})


def test_when_all_are_damaged_that_is_an_error(tmp_path: Path) -> None:
    (save_state(tmp_path, make(1)) / "state.json").unlink()
    with pytest.raises(DataError, match=r"No training state .* can be used\. .*state\.json is missing"):
        newest_state(tmp_path, warn=lambda text: None)


def test_a_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = save_state(tmp_path, make(1))
    for file in path.iterdir():
        content = file.read_bytes()
        for place in range(0, len(content), 1 + len(content) // 40):
            harmed = bytearray(content)
            harmed[place] ^= 1
            file.write_bytes(harmed)
            with pytest.raises(DataError, match="damaged"):
                check_state(path)
        file.write_bytes(content)
    check_state(path)
