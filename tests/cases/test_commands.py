"""Every command of the README and of the help pages runs: shortened by data and epochs, not by steps left out."""

import json
import re
import shlex
import shutil
import tarfile
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.text.learning import learn_vocabulary

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("hf:", "torchvision:", "camvid", "torchrun", "--engine ray")
"""A network, other data, several processes, or a library with warnings of its own: these have tests of their own."""
SHORT = {
    "train": ["--epochs", "1", "--imgsz", "32", "--batch", "8"],
    "sweep": ["--trials", "1", "--epochs", "1", "--imgsz", "32", "--batch", "8"],
    "bench": ["--peers", "none", "--rounds", "1", "--seconds", "0", "--batch", "1", "--imgsz", "32", "--no-starts"],
    "doctor": ["--no-speed"],
}
VERBS = ("train", "predict", "evaluate", "explain", "convert", "data", "models", "doctor")


def photos(root: Path, count: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 256, (70 + k, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.jpg")
    return root


def write_clip(path: Path) -> None:
    av = pytest.importorskip("av", reason="pip install av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in range(0, 200, 40):
            pixels = np.full((32, 32, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with everything that the commands name."""
    root = tmp_path_factory.mktemp("commands")
    photos(root / "photos")
    for name in ("flowers", "new_flowers", "imagenet_val"):
        shutil.copytree(root / "photos", root / name)
    for name in ("image.png", "photo.jpg", "new.jpg", "photos/one.jpg"):
        Image.open(root / "photos" / "ant" / "0.jpg").save(root / name)
    state = vitrail.create_model("vit_tiny_patch16_224", num_classes=2).state_dict()
    for name in ("vit_tiny.pt", "vit_tiny.pth"):
        torch.save(state, root / name)
    own = vitrail.create_model("vit_tiny_patch16_224", num_classes=2, dim=48, depth=1, num_heads=4)
    torch.save(own.state_dict(), root / "own_vit.pth")
    vit = vitrail.create_model("vit_tiny_patch16_224", num_classes=2, dim=24, depth=4, num_heads=2)
    vitrail.save_model(vit, root / "MODEL", labels=["ant", "bee"])
    sizes = {"dim": 12, "depths": (1, 1, 2), "num_heads": (1, 2, 2), "window_size": 4, "image_size": 64}
    swin = vitrail.create_model("swin_tiny_patch4_window7_224", num_classes=2, **sizes)
    for name in ("models/swin_tiny", "SWIN"):
        (root / name).parent.mkdir(exist_ok=True)
        vitrail.save_model(swin, root / name, labels=["ant", "bee"])
    restorer = vitrail.create_model("swinir_light_x2", dim=12, depths=(1,), num_heads=2)
    vitrail.save_model(restorer, root / "SWINIR")
    shutil.copy(root / "photo.jpg", root / "photo.png")
    own = {"dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
    detector = vitrail.create_model(
        "faster_rcnn", backbone="vit_tiny_patch16_224", backbone_config=own, channels=16, hidden=16, num_classes=2
    )
    vitrail.save_model(detector, root / "DETECTOR", labels=["ant", "bee"])
    films = vitrail.create_model("text_encoder_tiny", dim=16, depth=1, num_heads=2, vocab_size=260, num_classes=2)
    films.inputs = learn_vocabulary(["a warm and funny film"], size=260)
    vitrail.save_model(films, root / "FILMS", labels=["bad", "good"])
    (root / "bccd").mkdir()
    image = {"id": 1, "file_name": "0.jpg", "width": 90, "height": 70}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 30], "area": 600, "iscrowd": 0}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cell"}]}
    (root / "bccd" / "train.json").write_text(json.dumps(coco))
    shutil.copy(root / "photos" / "ant" / "0.jpg", root / "bccd" / "0.jpg")
    rows = [f"photos/{name}/{k}.jpg,{name}" for name in ("ant", "bee") for k in range(8)]
    (root / "labels.csv").write_text("\n".join(["path,species", *rows]))
    (root / "flowers.yaml").write_text(
        "data: flowers\nmodel: vit_tiny_patch16_224\nset: [depth=1, dim=24, num_heads=1]\n"
    )
    write_clip(root / "clip.mp4")
    with tarfile.open(root / "cifar10.tar.gz", "w:gz") as tar:
        tar.add(root / "photos", "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tiny = ["--set", "depth=1", "dim=24", "num_heads=1"]
        run = [
            "train",
            "photos/",
            "--model",
            "vit_tiny_patch16_224",
            *tiny,
            *SHORT["train"],
            "--out",
            "runs/classify/flowers",
        ]
        assert main(run) == 0
        sets = ["train", "digits", "--model", "vit_tiny_patch16_224", *tiny, "--imgsz", "16", "--epochs", "1"]
        assert main([*sets, "--out", "runs/classify/digits"]) == 0
        adapted = [
            "train",
            "photos/",
            "--weights",
            "vit_tiny.pth",
            "--lora",
            "2",
            *SHORT["train"],
            "--out",
            "runs/lora",
        ]
        assert main(adapted) == 0
        for name in ("runs/mine", "runs/big", "runs/classify/photos-vit_tiny_patch16_224"):
            shutil.copytree("runs/classify/flowers", name)
        yield root


def readme_commands() -> list[str]:
    block = re.search(r"## First hour\s+```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line.startswith("vitrail ")]


def help_commands() -> list[str]:
    lines = [line for verb in VERBS for line in import_module(f"vitrail.cli.{verb}").EXAMPLES.splitlines()]
    return [line.strip() for line in lines if line.strip().startswith("vitrail ")]


def words_of(command: str) -> list[str]:
    """Return the words of a command, shortened, without comment, pipe and redirection."""
    words = shlex.split(re.split(r"\s+#|\s+\||\s+>", command)[0])[1:]
    words = ["runs/classify/flowers" if word == "runs/classify/..." else word for word in words]
    verb, short = words[0], SHORT.get(words[0], [])
    pairs = list(zip(short[::2], short[1::2], strict=True)) if verb in ("train", "sweep") else []
    if verb in ("train", "sweep"):
        given = {flag for flag in words if flag.startswith("--")}
        for flag, value in pairs:
            if flag in given and flag in ("--epochs", "--trials"):
                words[words.index(flag) + 1] = value
            elif flag not in given and "--resume" not in given:
                words += [flag, value]
    else:
        words += [word for word in short if word not in words]
    return words


def run(command: str) -> None:
    expanded = []
    for word in words_of(command):
        found = sorted(map(str, Path().glob(word))) if "*" in word and "/" in word else []
        expanded += found or [word]
    assert main(expanded) == 0, shlex.join(expanded)


@pytest.mark.parametrize("command", [c for c in readme_commands() if not c.startswith("vitrail bench")])
def test_commands_of_the_readme(command, place):
    run(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in readme_commands() if c.startswith("vitrail bench")])
def test_the_benchmark_of_the_readme(command, place):
    run(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in help_commands() if not any(word in c for word in ELSEWHERE)])
def test_commands_of_the_help_pages(command, place):
    run(command)
