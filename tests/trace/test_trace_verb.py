"""`vitrail trace` from the command line."""

import pytest
from PIL import Image

from vitrail.cli import main

SMALL_VIT = ["vit_tiny_patch16_224", "--set", "depth=1", "dim=24", "image_size=32"]


def test_text_and_page(tmp_path, capsys):
    photo, page = tmp_path / "photo.png", tmp_path / "sub" / "trace.html"
    Image.new("RGB", (50, 40), (10, 120, 90)).save(photo)
    assert main(["trace", SMALL_VIT[0], str(photo), *SMALL_VIT[1:], "--text", "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "weights are random",
        "N = (32/16)·(32/16) = 2·2 = 4 tokens of 24",
        "logit lens",
        "slow twin",
        "Open",
    ):
        assert words in printed
    assert "Vitrail trace" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no_such_model"], "no_such_model"),
        ([SMALL_VIT[0], "missing.png"], "missing.png"),
        (["pointnet"], "the task points, which is not traced"),
        (["pixel_gpt_xxs"], "the task complete, which is not traced"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", *words]) == 2
    assert message in capsys.readouterr().err
