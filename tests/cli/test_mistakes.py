"""A battery of scripted mistakes: each gets its cause and cure in at most six lines, its code and no traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitrail

USER, DATA = 2, 3
TINY = "--batch 4 --model vit_tiny_patch16_224 --imgsz 8 --set patch_size=4 dim=16 depth=1 num_heads=2"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a user could point at by mistake."""
    root = tmp_path_factory.mktemp("world")
    for kind, colour in (("cat", "red"), ("dog", "blue")):
        (root / "pets" / kind).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), colour).save(root / "pets" / kind / f"{i}.png")
    shutil.copytree(root / "pets", root / "broken")
    (root / "broken" / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    (root / "empty").mkdir()
    (root / "one_class" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(root / "one_class" / "cat" / "0.png")
    (root / "table.csv").write_text("path,label\npets/cat/0.png,cat\n")
    (root / "no_columns.csv").write_text("a,b\n1,2\n")
    (root / "text.png").write_text("I am a letter.")
    (root / "two_labels.txt").write_text("cat\ndog\n")
    small = {"patch_size": 4, "dim": 16, "depth": 1, "num_heads": 2, "image_size": 16}
    model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, **small)
    vitrail.save_model(model, root / "model")
    shutil.copytree(root / "model", root / "flipped")
    weights = bytearray((root / "flipped" / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (root / "flipped" / "model.safetensors").write_bytes(weights)
    shutil.copytree(root / "model", root / "halved")
    (root / "halved" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (root / "cut.safetensors").write_bytes(weights[:100])
    (root / "empty.pth").touch()
    (root / "page.pth").write_text("<html>404</html>")
    torch.save({"classifier.0.weight": torch.zeros(3, 3)}, root / "foreign.pth")
    torch.save({"model": Path("x")}, root / "code.pth")
    return root


# The arguments, the exit code, and the required parts of the message.
MISTAKES: list[tuple[str, int, str]] = [
    # the command and its verbs
    ("trian", USER, "train"),
    ("eval", USER, "evaluate"),
    ("--verbose", USER, "--version"),
    ("help trian", USER, "train"),
    ("completion tcsh", USER, "zsh"),
    # models
    ("models swim_tiny", USER, "swin_tiny_patch4_window7_224"),
    ("models resnet9000", USER, "vitrail models"),
    ("models vit_tiny_patch16_244", USER, "vit_tiny_patch16_224"),
    ("models --jsn", USER, "--json"),
    ("models swin* vit*", USER, "vit*"),
    ("models vit_tiny_patch16_224 --set depht=3", USER, "depth"),
    ("models vit_tiny_patch16_224 --set depth", USER, "name=value"),
    ("models vit_tiny_patch16_224 --set num_heads=7", USER, "7 heads"),
    # doctor
    ("doctor --sped", USER, "--speed"),
    ("doctor speed=perhaps", USER, "--no-speed"),
    # train: words
    ("train", USER, "vitrail train digits"),
    ("train digits --epocs 3", USER, "--epochs"),
    ("train digits epocs=3", USER, "--epochs"),
    ("train digits --epochs three", USER, "whole number"),
    ("train digits --epochs 0", USER, "epochs"),
    ("train digits --lr -1", USER, "lr"),
    ("train digits --lr fast", USER, "number or auto"),
    ("train digits --batch none", USER, "auto"),
    ("train digits --precision fp61", USER, "fp32"),
    ("train digits --smoothing 2", USER, "smoothing"),
    ("train digits --model swim_tiny", USER, "swin_tiny_patch4_window7_224"),
    ("train digits --set dpeth=2 --model vit_tiny_patch16_224", USER, "depth"),
    ("train digits --device cuad", USER, "cuad"),
    # train: places
    ("train nowhere", USER, "nowhere"),
    ("train empty", DATA, "empty"),
    ("train one_class", DATA, "class"),
    ("train pets --val-share 0", USER, "val_share"),
    ("train no_columns.csv", USER, "Its columns: a, b."),
    ("train text.png", USER, "text.png"),
    ("train --resume nowhere", USER, "config.yaml"),
    ("train --resume empty", USER, "config.yaml"),
    ("train pets --out table.csv/run {tiny}", USER, "table.csv"),
    ("train pets --weights nowhere.pth {tiny}", USER, "nowhere.pth"),
    ("train pets --weights empty.pth {tiny}", DATA, "empty"),
    ("train broken --epochs 1 {tiny}", DATA, "0.png"),
    # evaluate
    ("evaluate", USER, "MODEL"),
    ("evaluate model", USER, "DATA"),
    ("evaluate nowhere digits", USER, "nowhere"),
    ("evaluate model nowhere", USER, "nowhere"),
    ("evaluate model digits --split tets", USER, "test"),
    ("evaluate model digits --split all", USER, "--split test"),
    ("evaluate model pets --split all --batch 0", USER, "batch"),
    ("evaluate model digits", USER, "3"),
    ("evaluate flipped digits", DATA, "model.safetensors"),
    ("evaluate halved digits", DATA, "model.safetensors"),
    ("evaluate model pets --split all --labels two_labels.txt", USER, "3"),
    ("evaluate model pets --split all --report nowhere/a.html", USER, "nowhere"),
    # predict
    ("predict", USER, "MODEL"),
    ("predict model", USER, "No images were given"),
    ("predict model nowhere.png", USER, "nowhere.png"),
    ("predict model empty", USER, "empty"),
    ("predict model text.png", DATA, "text.png"),
    ("predict nowhere pets", USER, "nowhere"),
    ("predict flipped pets", DATA, "model.safetensors"),
    ("predict model pets --top 0", USER, "at least 1"),
    ("predict model pets --json --csv", USER, "choose one"),
    ("predict swim_tiny pets", USER, "swin_tiny_patch4_window7_224"),
    # explain
    ("explain", USER, "MODEL"),
    ("explain model nowhere.png", USER, "nowhere.png"),
    ("explain model pets/cat/0.png --block 99", USER, "block"),
    ("explain model pets/cat/0.png --method sailency", USER, "saliency"),
    # convert
    ("convert", USER, "SOURCE"),
    ("convert cut.safetensors", USER, "--out"),
    ("convert nowhere.pth --out x", USER, "nowhere.pth"),
    ("convert cut.safetensors --out x", DATA, "cut.safetensors"),
    ("convert page.pth --out x", DATA, "web page"),
    ("convert code.pth --out x", DATA, "code.pth"),
    ("convert foreign.pth --out x", DATA, "foreign.pth"),
    ("convert model --to timn --out x.pth", USER, "timm"),
    # data
    ("data", USER, "ACTION"),
    ("data chekc digits", USER, "check"),
    ("data check nowhere", USER, "nowhere"),
    ("data check digist", USER, "digits"),
]


@pytest.mark.parametrize(("line", "code", "says"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_mistakes_get_cause_and_remedy(run, world, monkeypatch, line, code, says):
    monkeypatch.chdir(world)
    ran = run(*line.replace("{tiny}", TINY).split())
    lines = [text for text in ran.err.splitlines() if not text.startswith("note:")]
    assert ran.code == code, ran.err
    assert 1 <= len(lines) <= 6, ran.err
    assert "Traceback" not in ran.err and "---" not in ran.err
    assert says in ran.err


def test_data_check_reports_a_broken_data_set(run, world, monkeypatch):
    monkeypatch.chdir(world)
    ran = run("data", "check", "broken", "--json", "--workers", "0")
    assert ran.code == DATA and "0.png" in json.dumps(json.loads(ran.out)["bad"])


@pytest.mark.parametrize("line", ["trian", "models --jsn"])
def test_mistakes_in_a_new_process(world, line):
    command = [sys.executable, "-m", "vitrail", *line.split()]
    done = subprocess.run(command, cwd=world, capture_output=True, text=True)
    assert done.returncode == USER and done.stdout == ""
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 6
