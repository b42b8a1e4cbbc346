"""Small runs, each into a folder of its test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import TINY

from vitrail.training.config import TrainConfig


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Return a maker of tiny configs: ten updates an epoch, into a folder of the test's own."""

    def make(**changes: object) -> TrainConfig:
        return replace(TINY, **{"out": str(tmp_path / "run"), **changes})

    return make
