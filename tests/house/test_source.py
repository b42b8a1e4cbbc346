"""Every source file keeps the rules of the house, and every rule is shown a file that breaks it."""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from rules import imports, undocumented, unsafe

SOURCE = Path(__file__).parents[2] / "src" / "vitrail"
FILES = sorted(SOURCE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def offenders(rule: Callable[[Path], object]) -> dict[str, object]:
    """Return the files with violations of a rule, and the violations."""
    return {str(path.relative_to(SOURCE)): said for path in FILES if (said := rule(path))}


def test_files_have_a_limited_length() -> None:
    def too_long(path: Path) -> int:
        lines = path.read_text().count("\n")
        return lines if lines > (150 if path.parent.name == "models" else 400) else 0

    assert offenders(too_long) == {}


def test_file_names_are_specific() -> None:
    vague = {"util", "utils", "misc", "common", "helper", "helpers", "tools", "base", "core"}
    assert offenders(lambda path: {path.stem, path.parent.name} & vague) == {}


WRITTEN_HERE = {"export/runtime.py": "torch.export.load reads foreign code"}
"""Calls that read a file which the same command has just written, to compare it; no file of a user reaches them."""


def test_no_file_executes_code_from_data() -> None:
    found = offenders(lambda path: [said.split(": ", 1)[1] for said in unsafe(tree(path))])
    assert found == {name: [call] for name, call in WRITTEN_HERE.items()}


def test_every_public_name_has_a_docstring() -> None:
    assert offenders(lambda path: list(undocumented(tree(path)))) == {}


def test_recipes_and_benchmarks_are_not_imported() -> None:
    assert offenders(lambda path: imports(tree(path)) & {"recipes", "benchmarks", "tests"}) == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.pool",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "os.system(line)",
    ],
)
def test_the_rule_against_code_execution_detects_it(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "model.eval()", "from pickle import PickleError"],
)
def test_the_rule_against_code_execution_allows_safe_loading(line: str) -> None:
    assert not list(unsafe(ast.parse(line)))


def test_the_docstring_rule_detects_a_missing_one() -> None:
    owner = 'class A:\n  """A."""\n  def run(self): "Run."\n  def walk(self): pass\n  def forward(self): pass'
    heir = 'class B(A):\n  """B."""\n  def run(self): pass\n  def walk(self): pass'
    text = f'"""File."""\ndef f(): pass\ndef _g(): pass\n{owner}\n{heir}'
    assert list(undocumented(ast.parse(text))) == ["f", "A.walk", "B.walk"]
