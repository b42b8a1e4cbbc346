"""A readable model, pictures of one grey each, a folder with broken files, and a small real model."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from shades import Brightness, grey_set
from torch import nn

import vitrail
from vitrail.data.dataset import PictureSet
from vitrail.preprocess import Preprocess


@pytest.fixture
def brightness() -> Brightness:
    return Brightness()


@pytest.fixture
def greys() -> PictureSet:
    """Sixteen pictures, of which 3 are labelled wrong on purpose (numbers 1, 6 and 15)."""
    values = [10, 20, 30, 40, 90, 100, 110, 95, 150, 160, 170, 165, 230, 240, 220, 215]
    labels = [0, 1, 0, 0, 1, 1, 3, 1, 2, 2, 2, 2, 3, 3, 3, 0]
    return grey_set(values, labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with six pictures, two of which do not decode, in two folders."""
    root = tmp_path / "pictures"
    for i, value in enumerate([20, 90, 160, 230]):
        path = root / ("a" if i < 2 else "b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 9), value).save(path)
    (root / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (root / "b" / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("not a picture")
    return root


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    """A small real model with ten classes, the same in every test."""
    torch.manual_seed(0)
    grey = Preprocess(size=16, crop=1.0, mean=(0.5,), std=(0.5,))
    sizes = {"dim": 24, "depth": 2, "num_heads": 2, "patch_size": 4}
    model = vitrail.create_model("vit_tiny_patch16_224", num_classes=10, in_channels=1, preprocess=grey, **sizes)
    model.labels = tuple("0123456789")
    return model.eval()


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Callable[[str], ModuleType]]:
    """Import scripts of `benchmarks/` by name, and forget them and what they share afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        before = set(sys.modules)
        yield import_module
        for name in set(sys.modules) - before:
            if "/benchmarks/" in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
