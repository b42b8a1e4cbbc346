"""Every command of the tutorials runs, in order: shortened by data, epochs and sizes, not by steps left out."""

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.tasks import TASKS, find_task

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
TUTORIALS = ROOT / "docs" / "tutorials"
VIT = "dim=24 depth=2 num_heads=2 patch_size=8"
ALWAYS = {"--epochs": "1", "--batch": "4"}


def photos(root: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        (root / "photos" / name).mkdir(parents=True)
        for k in range(8):
            pixels = np.random.default_rng(10 * number + k).integers(0, 256, (40, 36 + k, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{k}.jpg")


def scenes(root: Path) -> None:
    runpy.run_path(str(TESTS / "tasks" / "segment_data.py"))["write"](root / "scenes", 4, 2, 2)


def squares(root: Path) -> None:
    draw = runpy.run_path(str(TESTS / "tasks" / "test_detect.py"))["draw_squares"]
    draw(root / "squares")


def clean(root: Path) -> None:
    runpy.run_path(str(TESTS / "restore" / "restore_sets.py"))["make_set"](root / "clean", 4)


def shapes(root: Path) -> None:
    tools = runpy.run_path(str(TESTS / "tasks" / "test_points_task.py"))
    for name in ("sphere", "lamp"):
        for number in range(6):
            split = "test" if number >= 4 else "train"
            cloud = tools["varied"](tools["SHAPES"][name](), number)
            tools["write_off"](root / "shapes" / split / name / f"{number:02}.off", cloud)


def texts(root: Path) -> None:
    runpy.run_path(str(TESTS / "tasks" / "test_sentiment.py"))["table"](root / "films")
    (root / "story.txt").write_text("the quick red fox runs over the green hill and the dog sleeps\n" * 60)
    (root / "pairs").mkdir()
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        (root / "pairs" / f"{split}.en").write_text("a dog runs in the snow\na cat sleeps\n" * (count // 2))
        (root / "pairs" / f"{split}.de").write_text("ein hund rennt im schnee\neine katze schläft\n" * (count // 2))


def models(root: Path) -> None:
    photos(root)
    (root / "photos" / "ant" / "0.jpg").rename(root / "photo.jpg")
    vit = vitrail.create_model("vit_tiny_patch16_224", num_classes=2, dim=24, depth=2, num_heads=2, image_size=48)
    vitrail.save_model(vit, root / "MODEL", labels=["ant", "bee"])
    sizes = {"dim": 12, "depths": (1, 1, 2), "num_heads": (1, 2, 2), "window_size": 4, "image_size": 64}
    swin = vitrail.create_model("swin_tiny_patch4_window7_224", num_classes=2, **sizes)
    vitrail.save_model(swin, root / "SWIN", labels=["ant", "bee"])


SETUP: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "classify": (photos, ["--imgsz", "32", "--set", *VIT.split()]),
    "segment": (scenes, ["--imgsz", "32", "--set", "dim=8", "depths=1,1,1,1", "num_heads=1,1,1,1", "window_size=4"]),
    "detect": (squares, ["--imgsz", "64", "--set", "channels=16", "hidden=32", *VIT.split()]),
    "restore": (
        clean,
        ["--patch", "8", "--patches", "1", "--set", "dim=8", "depths=2,", "num_heads=2", "window_size=4"],
    ),
    "points": (shapes, ["--points", "64", "--set", "dim=16", "global_dim=64", "transforms=false"]),
    "text": (texts, ["--set", "dim=16", "depth=1", "num_heads=2"]),
    "explain": (models, []),
}


def commands(name: str) -> list[str]:
    """Return the commands of a tutorial that need no network."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (TUTORIALS / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("vitrail ")]
    return [line for line in lines if "# downloads" not in line]


def shortened(command: str, extra: list[str]) -> list[str]:
    """Return the words of a command; a training gets few epochs and small sizes."""
    words = shlex.split(command.partition("  #")[0])[1:]
    if words[0] != "train" or "--resume" in words:
        return words
    for flag, value in ALWAYS.items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words + extra


def test_every_tutorial_is_tested():
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(SETUP)


@pytest.mark.parametrize(
    "name", ["explain", *(pytest.param(n, marks=pytest.mark.slow) for n in SETUP if n != "explain")]
)
def test_the_commands_of_a_tutorial(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, extra = SETUP[name]
    write(tmp_path)
    found = commands(name)
    assert found
    for command in found:
        words = shortened(command, extra)
        assert main(words) == 0, shlex.join(words)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_check_of_every_task_can_be_printed(task):
    """`vitrail data check --task` prints lines, or JSON; three tasks had neither."""
    kind = get_type_hints(type(find_task(task)).check)["return"]
    assert all(hasattr(kind, name) for name in ("lines", "to_dict")), kind
