"""The command, run inside the test's process: its output, its messages, its exit code."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from vitrail.cli import main


class Ran(NamedTuple):
    """One run of the command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `vitrail` with the words given, and return code, stdout and stderr."""

    def run_words(*words: str) -> Ran:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run_words
