"""Every example in a docstring runs, and none is overlooked."""

import ast
import doctest
import pkgutil
from importlib import import_module
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest

import vitrail

MODULES = [
    module.name
    for module in pkgutil.walk_packages(vitrail.__path__, "vitrail.")
    if not module.name.endswith("__main__")
]


class Finder(doctest.DocTestFinder):
    """Looks through the wrappers that check shapes in tests; the plain finder would take a wrapped function for another
    module's and skip it in silence."""

    def _from_module(self, module: Any, object: Any) -> bool:
        return super()._from_module(module, unwrap(object) if callable(object) else object)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["vitrail", *MODULES])
def test_examples_run(name: str) -> None:
    module = import_module(name)
    found = [test for test in Finder(exclude_empty=True).find(module, name) if test.examples]
    assert sorted({test.docstring for test in found}) == sorted(_with_examples(Path(str(module.__file__))))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in found:
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def _with_examples(path: Path) -> set[str]:
    """Read the docstrings that hold an example out of the file's text, with no help from imports."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return {text for node in nodes if ">>>" in (text := ast.get_docstring(node, clean=False) or "")}


SHARES = {"data": 0.55, "inference": 0.6, "parts": 0.75, "serving": 0.4, "tasks": 0.5}
"""Least share of public functions of a room whose docstring has an example that runs. It is 0.4 of all together."""


@pytest.mark.parametrize("room", SHARES)
def test_examples_are_many(room: str) -> None:
    texts = [
        ast.get_docstring(node) or ""
        for path in (Path(vitrail.__file__).parent / room).rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert sum(">>>" in text for text in texts) / len(texts) >= SHARES[room]
