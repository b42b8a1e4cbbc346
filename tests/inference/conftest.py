"""A readable model, images of one grey each, a folder with broken files, and a small real model."""

from pathlib import Path

import pytest
from PIL import Image
from shades import Brightness, mislabelled_greys, tiny_model
from torch import nn

from vitrail.data.dataset import ImageSet


@pytest.fixture
def brightness() -> Brightness:
    return Brightness()


@pytest.fixture
def greys() -> ImageSet:
    return mislabelled_greys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with six images, two of which do not decode, in two folders."""
    root = tmp_path / "pictures"
    for i, value in enumerate([20, 90, 160, 230]):
        path = root / ("a" if i < 2 else "b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 9), value).save(path)
    (root / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (root / "b" / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    return tiny_model()
