"""The recipes that lie beside the code say what the code understands."""

from pathlib import Path

import pytest

from vitrail.models import make_config
from vitrail.training.config import TrainConfig
from vitrail.training.config_io import read_values, typed

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_a_config_of_a_model_that_exists(path: Path) -> None:
    config = TrainConfig.from_dict(typed(TrainConfig, read_values(path)))
    make_config(config.model, **config.model_overrides())
