"""Drawn data sets, and a cache that belongs to the tests."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VITRAIL_CACHE", str(folder))
    yield folder


def smooth_image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth image that is unlike the others: random colours, scaled up."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes `{path: number of images}` under a new folder."""

    def write(folders: dict[str, int], size: tuple[int, int] = (40, 30), name: str = "pets") -> Path:
        root = tmp_path / name
        seed = 0
        for folder, count in folders.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (root / folder / f"{number:03d}.png").write_bytes(encoded(smooth_image(seed, size)))
                seed += 1
        return root

    return write
