"""Going on never loses work: every part of a run folder that can be missing or damaged is, in turn."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import split

import pytest
from small_run import TINY

from vitrail.cli import main
from vitrail.errors import DataError, VitrailError
from vitrail.training.checkpoint import UNSAVED, list_states
from vitrail.training.config import TrainConfig
from vitrail.training.log import read_log
from vitrail.training.reporters import NullReporter
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train

Make = Callable[..., TrainConfig]


class Heard(NullReporter):
    """Records its messages, and may stop the run after so many updates."""

    def __init__(self, stop: StopRequest | None = None, after: int = 0):
        self.notes: list[str] = []
        self.stop, self.after = stop, after

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, moment: object) -> None:
        self.after -= 1
        if self.after == 0 and self.stop:
            self.stop.code = 130


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, with two states."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(replace(TINY, out=str(folder), save_steps=10))
    assert len(list_states(folder / "state")) == 2
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be harmed."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "gone",
    [
        ("state",),
        ("state/*",),
        ("state", "summary.json", "metrics.jsonl", "results.csv"),
        ("state", "weights"),
        ("state", "weights", "summary.json", "results.csv"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["resume", "auto"])
def test_a_run_without_its_state_is_not_overwritten(copy: Path, gone: tuple[str, ...], how: str) -> None:
    for pattern in gone:
        for path in copy.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(copy)
    config = TrainConfig(resume=str(copy))
    if how == "auto":
        config = replace(TINY, resume="auto", out=str(copy), save_steps=10)
    with pytest.raises(VitrailError, match="it has no training state") as caught:
        train(config)
    assert contents(copy) == before
    assert len(str(caught.value).splitlines()) <= 6


@pytest.mark.parametrize("weights", [True, False])
def test_the_remedy_of_the_error_works(copy: Path, weights: bool, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "state")
    if not weights:
        shutil.rmtree(copy / "weights")
    with pytest.raises(VitrailError) as caught:
        train(TrainConfig(resume=str(copy)))
    words = split(str(caught.value).splitlines()[-1].replace("NEW_FOLDER", str(copy.parent / "new")))
    assert words[0] == "vitrail" and ("--weights" in words) == weights
    before = contents(copy)
    assert main(words[1:]) == 0
    capsys.readouterr()
    assert contents(copy) == before
    assert (copy.parent / "new" / "summary.json").is_file()


def test_a_run_killed_before_its_first_checkpoint_restarts(whole: Path, tiny: Make, tmp_path: Path) -> None:
    """Its log, and even weights that are written just before the state, are made again, bit for bit."""
    killed = tmp_path / "run"
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("summary.json", "last", "step-*"))
    (killed / "state" / UNSAVED).touch()
    train(TrainConfig(resume=str(killed)))
    again, first = contents(killed), contents(whole)
    assert again["weights/best/model.safetensors"] == first["weights/best/model.safetensors"]
    assert [row["step"] for row in read_log(killed / "metrics.jsonl", "step")] == list(range(1, 21))


def test_the_start_note_exists_until_the_first_checkpoint(tiny: Make, tmp_path: Path) -> None:
    seen = []

    class Look(NullReporter):
        def step(self, moment: object) -> None:
            state = tmp_path / "run" / "state"
            seen.append(((state / UNSAVED).exists(), bool(list_states(state))))

    train(tiny(epochs=1, save_steps=5), Look())
    assert set(seen) == {(True, False), (False, True)}
    assert not (tmp_path / "run" / "state" / UNSAVED).exists()


def test_a_run_resumes_without_its_initial_weights(copy: Path, tiny: Make) -> None:
    stop = StopRequest()
    began = copy / "weights" / "best"
    with pytest.raises(Interrupted):
        train(tiny(weights=str(began), lr=1e-3), Heard(stop, after=7), stop=stop)
    shutil.rmtree(copy)
    folder = began.parents[2] / "run"
    train(TrainConfig(resume=str(folder)))
    assert (folder / "summary.json").is_file()


def test_a_folder_with_only_a_config_starts_a_run(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    train(TrainConfig(resume=str(copy)))
    assert (copy / "summary.json").is_file()


def test_a_damaged_state_with_a_whole_one_before_it_ends_with_the_same_weights(copy: Path, whole: Path) -> None:
    newest = list_states(copy / "state")[0]
    (newest / "tensors.safetensors").write_bytes(b"nothing")
    ear = Heard()
    train(TrainConfig(resume=str(copy)), ear)
    assert any("Falling back" in text for text in ear.notes)
    one, two = contents(copy), contents(whole)
    for name in ("weights/best/model.safetensors", "weights/last/model.safetensors"):
        assert one[name] == two[name]


def test_without_a_valid_checkpoint_no_file_is_changed(copy: Path) -> None:
    for path in list_states(copy / "state"):
        (path / "tensors.safetensors").write_bytes(b"nothing")
    before = contents(copy)
    with pytest.raises(DataError, match="No training state"):
        train(TrainConfig(resume=str(copy)))
    assert contents(copy) == before


@pytest.mark.parametrize("finished", [True, False])
def test_missing_best_weights_are_taken_from_the_checkpoint(
    tiny: Make, copy: Path, tmp_path: Path, finished: bool
) -> None:
    folder = copy
    if not finished:
        stop = StopRequest()
        with pytest.raises(Interrupted):
            train(tiny(), Heard(stop, after=15), stop)
        folder = tmp_path / "run"
    shutil.rmtree(folder / "weights" / "best")
    ear = Heard()
    summary = train(TrainConfig(resume=str(folder)), ear)
    assert any("is gone" in text for text in ear.notes)
    assert 0 <= summary.validation["val_top1"] <= 1 and (folder / "weights" / "best" / "model.safetensors").is_file()
    assert [row["step"] for row in read_log(folder / "metrics.jsonl", "step")] == list(range(1, 21))


def test_damaged_best_weights_are_named_before_the_training(copy: Path) -> None:
    path = copy / "weights" / "best" / "model.safetensors"
    harmed = bytearray(path.read_bytes())
    harmed[-1] ^= 1
    path.write_bytes(harmed)
    with pytest.raises(DataError, match=r"weights/best is damaged(.|\n)*move .*weights/best away"):
        train(TrainConfig(resume=str(copy)))
    assert path.read_bytes() == bytes(harmed)


def test_missing_native_kernels_are_reported_at_the_start_and_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, stop = Heard(), StopRequest()
    heard.stop, heard.after = stop, 5
    config = replace(TINY, out=str(tmp_path / "run"), save_steps=2)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("vitrail.fused.train_blocks.missing", lambda *names: "no compiler")
        train(config, reporter=heard, stop=stop)
    assert sum("native training kernels are not available (no compiler)" in note for note in heard.notes) == 1
    again = Heard()
    train(replace(TINY, resume=str(tmp_path / "run")), reporter=again)
    expected = "training kernels was PyTorch and is native: the run will not be bit for bit the same"
    assert any(expected in note for note in again.notes)
