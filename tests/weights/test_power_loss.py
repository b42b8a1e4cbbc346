"""R3: a power loss between any two steps of a save drops unflushed data; the old or the new state is found, whole."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from power import Recorder, every_loss, write_tree

from vitrail import atomic_io
from vitrail.atomic_io import replace_folder, settle, write_file
from vitrail.models import create_model
from vitrail.training.checkpoint import Checkpoint, TrainingProgress, newest_state, save_state
from vitrail.weights.folder import load_model, save_model

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the recorder reads /proc")


def save_bytes(top: Path, number: int) -> None:
    write_file(top / "a", b"%d" % number * 4)


def read_bytes(top: Path) -> int:
    return whole({(top / "a").read_bytes()}) if (top / "a").exists() else 0


def whole(values: set[bytes]) -> int:
    (value,) = values
    assert len(value) == 4 and len(set(value)) == 1
    return int(value[:1])


def save_two(top: Path, number: int) -> None:
    with replace_folder(top / "deep" / "x") as new:
        write_file(new / "a", b"%d" % number * 4)
        (new / "sub").mkdir()
        write_file(new / "sub" / "b", b"%d" % number * 4)


def read_two(top: Path) -> int:
    target = top / "deep" / "x"
    settle(target)
    if not target.exists():
        return 0
    assert os.listdir(target.parent) == ["x"]
    return whole({(target / "a").read_bytes(), (target / "sub" / "b").read_bytes()})


def save_training(top: Path, number: int) -> None:
    """The second save of each pair is at the same step, as when a run is stopped right after a save."""
    step = (number + 1) // 2
    save_state(
        top,
        Checkpoint(TrainingProgress(step=step), {"number": number}, {"model": {"w": torch.full((3,), float(number))}}),
    )


def read_training(top: Path) -> int:
    def damaged(text: str) -> None:
        raise AssertionError(text)

    state = newest_state(top, warn=damaged)
    if state is None:
        return 0
    w = torch.zeros(3)
    state.read({"model": {"w": w}})
    assert w.tolist() == [state.facts["number"]] * 3
    return state.facts["number"]


MODEL = create_model("mixer_s32_224", dim=4, depth=1, patch_size=4, image_size=8, num_classes=2)


def save_classifier(top: Path, number: int) -> None:
    with torch.no_grad():
        MODEL.head.linear.bias.fill_(number)
    save_model(MODEL, top / "best", labels=[f"no {number}", f"yes {number}"])


def read_classifier(top: Path) -> int:
    settle(top / "best")
    if not (top / "best").exists():
        return 0
    model = load_model(top / "best")
    number = int(model.head.linear.bias[0])
    assert model.labels == (f"no {number}", f"yes {number}")
    return number


SUBJECTS = {
    "file": (save_bytes, read_bytes, 3),
    "folder": (save_two, read_two, 3),
    "training state": (save_training, read_training, 5),  # the fifth is of the third step, and removes the first
    "model folder": (save_classifier, read_classifier, 2),
}


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def _exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(atomic_io, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("_exchange")
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_power_loss_leaves_the_old_or_the_new(subject: str, tmp_path: Path) -> None:
    """And once a save has returned, it is not lost."""
    save, read, saves = SUBJECTS[subject]
    recorder = record(tmp_path / "disk", save, saves)
    found = {(returned, read(place)) for place, returned in every_loss(recorder, tmp_path / "after")}
    assert found == {(number, number + more) for number in range(saves) for more in (0, 1)} | {(saves, saves)}


def careless(top: Path, number: int) -> None:
    """Replace a file as most programs do: temporary file and rename, nothing flushed."""
    with open(top / "new", "xb") as file:
        file.write(b"%d" % number * 4)
    os.replace(top / "new", top / "a")


def test_a_writer_without_fsync_is_detected(tmp_path: Path) -> None:
    """The replay finds the file empty, torn, and gone after the save returned."""
    found = set()
    for place, returned in every_loss(record(tmp_path / "disk", careless, 2), tmp_path / "after"):
        found.add((returned, (place / "a").read_bytes() if (place / "a").exists() else None))
    assert {(2, None), (2, b""), (2, b"11"), (2, b"22"), (2, b"1111"), (2, b"2222")} <= found


def record(top: Path, save: Callable[[Path, int], None], saves: int) -> Recorder:
    """Save some times."""
    top.mkdir()
    recorder = Recorder(top)
    for number in range(1, saves + 1):
        recorder.run(lambda number=number: save(top, number))
    return recorder


@pytest.mark.usefixtures("_exchange")
def test_a_kill_followed_by_a_power_loss(tmp_path: Path) -> None:
    """The cleanup of the next process must not remove files that the disk still needs."""
    for kill, (disk, returned) in enumerate(record(tmp_path / "disk", save_two, 2).moments):
        if returned == 1:
            place = tmp_path / f"killed-{kill}"
            write_tree(place, disk.seen())
            later = Recorder(place, disk)
            later.run(lambda place=place: settle(place / "deep" / "x"))
            for after, _ in every_loss(later, tmp_path / "after"):
                assert read_two(after) in (1, 2)
