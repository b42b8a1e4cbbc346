"""Sweeps that are shared and continued, and trackers with fake packages."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.training import sweep as sweeping
from vitrail.training.search_space import parse_space
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lrr=1:2", "Did you mean: lr"),
        ("lr", "has no values"),
        ("lr=2:1", "no range"),
        ("lr=0:1:log", "no range"),
        ("lr=1:2:3", "no range"),
        ("epochs=a,b", "epochs"),
    ],
)
def test_an_invalid_search_space_is_refused(text: str, said: str) -> None:
    with pytest.raises(VitrailError, match=said):
        parse_space("classify", (text,))


def test_numbers_and_choices_are_distinguished() -> None:
    lr, epochs, kind = parse_space("classify", ("lr=1e-4:1e-2:log", "epochs=1:4", "optimizer=adamw,sgd"))
    assert lr.log and not lr.whole and epochs.whole and kind.choices == ("adamw", "sgd")
    for texts in ((), ("lr=1:2", "lr=1:3")):
        with pytest.raises(VitrailError):
            parse_space("classify", texts)


def test_a_killed_trial_continues_and_a_second_process_helps(tiny, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("optuna")
    config, root = tiny(epochs=1, batch=400, out=None), tmp_path / "sweep"
    space = parse_space("classify", ("lr=1e-4:1e-2:log", "optimizer=adamw,sgd"))
    stop = StopRequest()
    stop.request(130)
    with pytest.raises(Interrupted, match=str(root)):
        sweeping.sweep(config, space, 2, root, stop=stop)
    made: list[str] = []

    def counted(one, *arguments):
        made.append(str(one.out))
        return train(one, *arguments)

    monkeypatch.setattr(sweeping, "train", counted)
    done = sweeping.sweep(config, space, 2, root)
    assert [Path(name).name for name in made] == ["trial-0000", "trial-0001"]
    assert done[0].best >= done[1].best and {one.number for one in done} == {0, 1}
    assert sweeping.sweep(config, space, 2, root) == done and len(made) == 2  # nothing is left to do
    with pytest.raises(VitrailError, match="another search space"):
        sweeping.sweep(config, space[:1], 3, root)


@pytest.mark.slow
def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    flags = (
        "--model vit_tiny_patch16_224 --set dim=16 depth=1 num_heads=2 patch_size=4 --imgsz 8 --epochs 1 --batch 400"
    )
    command = [sys.executable, "-m", "vitrail", "sweep", "digits", *flags.split(), "--space", "lr=1e-4:1e-2:log"]
    command += ["--trials", "4", "--out", str(tmp_path / "s")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    runs = sorted(path.name for path in (tmp_path / "s").glob("trial-*"))
    assert runs == [f"trial-{number:04d}" for number in range(4)]
    assert all((tmp_path / "s" / name / "summary.json").is_file() for name in runs) and "best" in told[0] + told[1]


def test_a_missing_package_is_named(tiny, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr("vitrail.training.sweep.find_spec", lambda name: None)
    assert main(["sweep", "digits", "--space", "lr=1e-4:1e-2", "--out", str(tmp_path / "s")]) == 2
    assert "pip install optuna" in capsys.readouterr().err
    monkeypatch.setattr("vitrail.training.trackers.tracker.find_spec", lambda name: None)
    with pytest.raises(VitrailError, match="pip install wandb"):
        train(tiny(track="wandb"))


class FakeService(ModuleType):
    """The calls of wandb, mlflow and trackio that the adapters make."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple] = []

    def note(self, name: str):
        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            return SimpleNamespace(
                id="w1", log=self.note("log"), finish=self.note("finish"), info=SimpleNamespace(run_id="m1")
            )

        return call

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.note(name)


@pytest.mark.parametrize(
    ("name", "begin", "log", "end", "identity"),
    [
        ("wandb", "init", "log", "finish", "w1"),
        ("mlflow", "start_run", "log_metrics", "end_run", "m1"),
        ("trackio", "init", "log", "finish", "run"),
    ],
)
def test_a_tracker_gets_every_step_and_a_resumed_run_continues(
    tiny, monkeypatch, name: str, begin: str, log: str, end: str, identity: str
) -> None:
    service = FakeService(name)
    monkeypatch.setitem(sys.modules, name, service)
    monkeypatch.setattr("vitrail.training.trackers.tracker.find_spec", lambda name: True)
    config = tiny(track=name, epochs=1, batch=400)
    train(config)
    sent = [call for call in service.calls if call[0] == log]
    assert [call[2]["step"] for call in sent] == [1, 2, 3, 3]
    assert "train/loss" in sent[0][1][0] and "epoch/val_loss" in sent[-1][1][0] and service.calls[-1][0] == end
    train(tiny(track=name, epochs=1, batch=400, resume="auto"))
    again = [call[2] for call in service.calls if call[0] == begin][-1]
    assert identity in again.values()
