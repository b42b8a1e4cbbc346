"""Text of a study: the documentation strings of the library's own architectures, byte by byte."""

import ast
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

import vitrail

HELD_OUT = 0.1


@lru_cache(maxsize=1)
def own_text() -> tuple[Tensor, Tensor]:
    """Return the bytes of the docstrings of `parts/`, to train and, the last tenth, to test.

    English prose with formulas that is there without a download; it changes with the version of the library.
    """
    root = Path(vitrail.__file__).parent
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = []
    for path in sorted((root / "parts").glob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
    data = torch.tensor(list("\n\n".join(found).encode("ascii", "ignore")))
    cut = int(len(data) * (1 - HELD_OUT))
    return data[:cut], data[cut:]


def windows_of(data: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return inputs `(B, length)` and the bytes that follow each of them."""
    index = starts[:, None] + torch.arange(length + 1)
    rows = data[index]
    return rows[:, :-1], rows[:, 1:]
