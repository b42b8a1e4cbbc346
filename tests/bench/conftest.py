"""Scripts of `benchmarks/` as modules."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Callable[[str], ModuleType]]:
    """Import scripts of `benchmarks/` by name, and unload them and their shared modules afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        before = set(sys.modules)
        yield import_module
        for name in set(sys.modules) - before:
            if "/benchmarks/" in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
