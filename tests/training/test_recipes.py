"""The recipes are configs that the command reads."""

from pathlib import Path

import pytest

from vitrail.cli import verb_class
from vitrail.cli.arguments import parse
from vitrail.models import list_models
from vitrail.tasks import TASKS

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_recipes_exist() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_a_config_of_a_model_that_exists(path: Path) -> None:
    words = ["--config", str(path)]
    options = parse("train", verb_class("train", words), words)
    assert options.task in TASKS and options.model in ("auto", *list_models())
