"""Frames of videos and cameras as inputs of a prediction."""

from fractions import Fraction
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from shades import Brightness

import vitrail
from vitrail.cli import main
from vitrail.errors import DataError, VitrailError
from vitrail.parts.model import Model
from vitrail.tasks import video
from vitrail.tasks.video import FrameSource, is_video, with_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video of 20 frames, 10 per second, that grows brighter."""
    av = pytest.importorskip("av", reason="pip install av")
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(20):
            pixels = np.full((32, 32, 3), 12 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_frames_are_those_of_the_video_in_any_order(clip: str) -> None:
    images = FrameSource(clip).images("L")
    assert [one.name for one in images[:2]] == [f"{clip}#0", f"{clip}#1"] and len(images) == 20
    for number in (0, 1, 5, 3, 4, 19, 2):  # threads ask for neighbours in any order
        assert abs(np.asarray(images[number].read()).mean() - 12 * number) < 6, number


def test_a_rate_and_a_limit_choose_frames(clip: str) -> None:
    assert [one.name.rpartition("#")[2] for one in FrameSource(clip, fps=2).images("L")] == ["0", "5", "10", "15"]
    assert len(FrameSource(clip, fps=2, most=3).images("L")) == 3 and len(FrameSource(clip, fps=100).images("L")) == 20


def test_a_video_is_predicted_like_a_folder(clip: str, tmp_path: Path) -> None:
    found = vitrail.predict(Brightness(), with_frames([clip], fps=0, most=0), optimize=False)
    assert found[0].label == "dark" and found[-1].label == "white" and len(found) == 20


def test_videos_of_folders_are_counted_not_predicted(tiny: Model, tmp_path: Path, capsys) -> None:
    saved, folder = str(vitrail.save_model(tiny, tmp_path / "tiny")), tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "clip.MP4").write_bytes(b"x")
    assert main(["predict", saved, str(folder)]) == 2
    assert "holds no images, but 1 video, which" in capsys.readouterr().err
    Image.new("L", (12, 9), 90).save(folder / "a.png")
    assert main(["predict", saved, str(folder)]) == 0
    assert "1 video of the folders is left out: name the file" in capsys.readouterr().err


def test_a_camera_gives_frames_at_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()

    def decode(video: int):
        while True:
            grey = next(numbers) % 200
            yield SimpleNamespace(to_image=lambda grey=grey: Image.new("RGB", (8, 8), (grey, grey, grey)))

    monkeypatch.setattr(video, "_open", lambda place, **options: SimpleNamespace(decode=decode))
    monkeypatch.setattr(video, "find_spec", lambda name: True)
    images = FrameSource("camera:1", fps=200, most=3).images("L")
    values = [np.asarray(one.read()).mean() for one in images]
    assert len(values) == 3 and values == sorted(values)
    with pytest.raises(VitrailError, match="camera:0"):
        FrameSource("camera:front").images("L")


def test_unreadable_videos_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("av")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match="cannot be opened"):
        FrameSource(str(tmp_path / "bad.mp4")).images("L")
    with pytest.raises(VitrailError, match="cannot be opened"):
        FrameSource(str(tmp_path / "none.mp4")).images("L")
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(VitrailError, match=r"pip install av"):
        FrameSource("clip.mp4").images("L")
    assert is_video("camera:0") and not is_video("photo.jpg")
    assert main(["predict", "model", "clip.mp4", "--fps", "-1"]) == 2
