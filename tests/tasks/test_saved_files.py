"""Files of predictions: none replaces another, or an input, and links keep their names."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.cli.saved_files import check_saved_files
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.tasks.results import file_stem


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random detector, which writes `NAME.jpg`."""
    vit = {"depth": 1, "dim": 16, "num_heads": 2, "patch_size": 8}
    fields: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "backbone_config": vit, "image_size": 64}
    model = create_model("faster_rcnn", **fields, num_classes=2, channels=16, hidden=32).eval()
    model.metadata = {"labels": ("a", "b")}
    folder = tmp_path_factory.mktemp("detector") / "model"
    vitrail.save_model(model, folder)
    return str(folder)


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (40, 30), (200, 60, 60)).save(folder / name)
    return folder


def test_two_inputs_of_one_name_are_refused_before_anything_is_written(
    detector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "in", "a.png", "a.bmp", "b.png")
    assert main(["predict", detector, str(folder), "--save", str(tmp_path / "out")]) == 2
    assert "a.bmp and" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["predict", detector, str(folder)]) == 0  # without files there is nothing to replace


def test_a_drawing_never_replaces_its_photo(detector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "in", "a.jpg")
    before = (folder / "a.jpg").read_bytes()
    assert main(["predict", detector, str(folder), "--save", str(folder)]) == 2
    assert "Choose another folder" in capsys.readouterr().err and (folder / "a.jpg").read_bytes() == before


def test_links_to_one_file_have_results_of_their_own(detector: str, tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", "a.png")
    (folder / "b.png").symlink_to("a.png")
    assert main(["predict", detector, str(folder), "--save", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.jpg", "b.jpg", "coco.json"}


def test_frames_of_a_video_have_files_of_their_own(tmp_path: Path) -> None:
    names = [f"{tmp_path}/in/clip.mp4#{number}" for number in range(3)]
    assert [file_stem(name) for name in names] == ["clip-0", "clip-1", "clip-2"]
    check_saved_files(names, file_stem, tmp_path / "out", f"{tmp_path}/in")
    with pytest.raises(VitrailError, match="same file"):
        check_saved_files([names[0], f"{tmp_path}/in/clip.avi#0"], file_stem, tmp_path / "out", f"{tmp_path}/in")
