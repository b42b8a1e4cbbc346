"""Drawn data sets, and a cache that belongs to the tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drawn_images import encoded, smooth_image  # pyright: ignore[reportMissingImports]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VITRAIL_CACHE", str(folder))
    yield folder


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
