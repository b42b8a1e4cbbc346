"""Share of public functions with an example that runs: 40 % of the API reference and of everything."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
EVERYWHERE = 0.4
"""Least share of all public functions of modules."""


def functions(path: Path) -> list[bool]:
    """Return for each public function of a module whether its docstring has an example."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [">>>" in (ast.get_docstring(node) or "") for node in nodes if not node.name.startswith("_")]


def module_file(name: str) -> Path:
    path = SOURCE.joinpath(*name.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def test_two_of_five_functions_of_the_reference_have_an_example() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    modules = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page.read_text())]
    found = [has for name in modules for has in functions(module_file(name))]
    assert len(modules) == len(set(modules)) > 50 and sum(found) >= 0.4 * len(found), (sum(found), len(found))


@pytest.mark.slow
def test_examples_do_not_become_fewer() -> None:
    found = [has for path in (SOURCE / "vitrail").rglob("*.py") for has in functions(path)]
    assert sum(found) >= EVERYWHERE * len(found), (sum(found), len(found))
