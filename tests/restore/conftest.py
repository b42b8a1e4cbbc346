"""A small image set and a trained small restorer."""

from pathlib import Path

import pytest
from restore_sets import make_config, make_set

from vitrail.training.train import train


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("images") / "set")


@pytest.fixture(scope="session")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("restore") / "run"
    train(make_config(images, folder, epochs=6))
    return folder
