"""Sharded states (FSDP2): each process writes its part, any number reads them, and only a complete state counts."""

import hashlib
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import finish, start, start_together
from safetensors.torch import load_file
from small_run import TINY

from vitrail.training import checkpoint, distributed
from vitrail.training.checkpoint import UNSAVED, list_states, newest_state
from vitrail.training.config import TrainConfig
from vitrail.training.log import read_log

Make = Callable[..., TrainConfig]
SHARDED: dict[str, Any] = {"parallel": "fsdp", "ema": 0.9, "mixup": 0.3, "grad_accum": 2, "threads": 1, "save_steps": 4}
FIRST, SECOND = (f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2))


def fingerprint(folder: Path) -> dict[str, str]:
    """Return what two runs that are the same must share: weights, each shard of the state, and every step of the log.

    The tensors are compared, and not the files: torch writes the header of a shard in an order that changes.
    """
    files = [*(folder / "weights").glob("*/model.safetensors"), *list_states(folder / "state")[0].glob("*.safetensors")]
    prints = {str(path.relative_to(folder)): contents(path) for path in files}
    return {**prints, "steps": json.dumps(read_log(folder / "metrics.jsonl", "step"))}


def contents(path: Path) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbs: ten updates, saved after 4, 8 and 10."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = TrainConfig(**{**vars(TINY), **SHARDED, "epochs": 1, "out": str(folder)})
    assert finish(*start_together(config, size=2)) == [0, 0]
    return folder


def quiet(text: str) -> None:
    raise AssertionError(text)


def test_each_process_writes_its_own_part(whole: Path) -> None:
    """Two files of about half the state each; together they hold every number once."""
    state = list_states(whole / "state")[0]
    assert sorted(path.name for path in state.iterdir()) == ["manifest.json", FIRST, SECOND, "state.json"]
    sizes = [(state / name).stat().st_size for name in (FIRST, SECOND)]
    assert max(sizes) < 0.65 * sum(sizes)
    counts: dict[str, int] = {}
    for name in (FIRST, SECOND):
        for key, part in load_file(state / name).items():
            counts[key] = counts.get(key, 0) + part.numel()
    for key, value in load_file(whole / "weights" / "last" / "model.safetensors").items():
        tables = ("model.{}", "ema.{}", "optimizer.{}|exp_avg", "optimizer.{}|exp_avg_sq")
        assert {counts.pop(table.format(key)) for table in tables} == {value.numel()}, key
        assert counts.pop(f"optimizer.{key}|step") == 1
    assert not counts


def test_one_process_reads_what_two_wrote(whole: Path) -> None:
    """The moving average, put together from its shards, is the exported model, bit for bit."""
    saved = newest_state(whole / "state", warn=quiet)
    assert saved is not None and saved.position.step == 10
    exported = load_file(whole / "weights" / "last" / "model.safetensors")
    read = {name: torch.full_like(value, float("nan")) for name, value in exported.items()}
    saved.read({"ema": read})
    for name, value in exported.items():
        assert torch.equal(read[name], value), name


@pytest.mark.parametrize("name", [FIRST, SECOND])
@pytest.mark.parametrize("damage", ["is missing", "is damaged"])
def test_a_shard_that_is_missing_or_damaged_is_named(whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    shutil.copytree(whole / "state", tmp_path / "state")
    shard = list_states(tmp_path / "state")[0] / name
    if damage == "is missing":
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes())
        content[-7] ^= 1
        shard.write_bytes(content)
    said: list[str] = []
    saved = newest_state(tmp_path / "state", warn=said.append)
    assert saved is not None and saved.position.step == 8
    assert len(said) == 1 and f"step-00000010/{name} {damage}" in said[0]


def test_two_stopped_processes_resume_to_the_same_bits(tiny: Make, whole: Path, tmp_path: Path) -> None:
    config = tiny(**SHARDED, epochs=1)
    pair = start_together(config, size=2)
    for _ in range(20_000):
        if list_states(tmp_path / "run" / "state"):
            break
        time.sleep(0.002)
    for process in pair:
        os.kill(process.pid or 0, signal.SIGTERM)
    assert set(finish(*pair)) == {143}
    assert finish(*start_together(TrainConfig(resume=config.out), size=2)) == [0, 0]
    assert fingerprint(tmp_path / "run") == fingerprint(whole)


def die_in_a_save(rank: str, function: str, number: int, after: bool) -> None:
    """Let this process die before or after the `number`-th call of a function of saving, if it has this rank."""

    room: Any = distributed if hasattr(distributed, function) else checkpoint
    real, calls = getattr(room, function), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number and not after:
            os._exit(9)
        result = real(*args, **kwargs)
        if calls[0] == number:
            os._exit(9)
        return result

    if os.environ["RANK"] == rank:
        setattr(room, function, call)


@pytest.mark.parametrize(
    ("rank", "function", "after"),
    [("1", "write_shards", False), ("1", "write_shards", True), ("0", "write_shards", True), ("0", "_finish", True)],
)
def test_a_process_killed_during_a_save_leaves_the_previous_checkpoint(
    tiny: Make, whole: Path, tmp_path: Path, rank: str, function: str, after: bool
) -> None:
    """In the second save; but once the folder has its name, the new state is the one."""
    config = tiny(**SHARDED, epochs=1)
    codes = finish(*start_together(config, 2, before=partial(die_in_a_save, rank, function, 2, after)))
    assert codes[int(rank)] == 9 and codes[1 - int(rank)] not in (0, 9)
    saved = newest_state(tmp_path / "run" / "state", warn=quiet)
    assert saved is not None and saved.position.step == (8 if function == "_finish" else 4)
    assert finish(*start_together(TrainConfig(resume=config.out), size=2)) == [0, 0]
    assert fingerprint(tmp_path / "run") == fingerprint(whole)
    assert not [path for path in (tmp_path / "run" / "state").iterdir() if path.name.startswith(".")]


def small_files(rank: str) -> None:
    """Keep the files of this process small, if it has this rank."""
    if os.environ["RANK"] == rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_disk_full_on_one_rank_is_reported_by_all(tiny: Make, tmp_path: Path) -> None:
    """R4: both end with the code of a full disk, at once, and leave nothing half-written."""
    config = tiny(**SHARDED, epochs=1)
    assert finish(*start_together(config, 2, before=partial(small_files, "1"))) == [4, 4]
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == [UNSAVED]


def test_the_number_of_processes_may_change_between_checkpoints(tiny: Make, whole: Path, tmp_path: Path) -> None:
    """One process writes, two read; `test_distributed.py` compares the results."""
    config = tiny(**SHARDED, epochs=1)
    assert finish(start(config)) == [0]
    state = list_states(tmp_path / "run" / "state")[0]
    assert sorted(path.name for path in state.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert finish(*start_together(TrainConfig(resume=config.out), size=2)) == [0, 0]
    assert sorted(path.name for path in state.iterdir()) == ["manifest.json", FIRST, SECOND, "state.json"]
