"""Building: once, whole or not at all, and with a reason where it cannot be."""

import shutil
from pathlib import Path

import pytest
import torch

from vitrail.native import library as room
from vitrail.native.library import SOURCES, Unavailable, build, compiler, library, refusal


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    library.cache_clear()
    yield
    library.cache_clear()


def script(folder: Path, text: str) -> str:
    path = folder / "compile"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        compiler()
    assert "no C++ compiler" in (refusal(torch.float32) or "")
    assert "not torch.float64" in (refusal(torch.float64) or "")


def test_what_a_compiler_says_is_told_and_nothing_half_built_stays(tmp_path: Path) -> None:
    broken = script(tmp_path, 'echo "no such instruction" >&2; exit 1\n')
    with pytest.raises(Unavailable, match="no such instruction"):
        build("products", broken)
    assert list((tmp_path / "native").iterdir()) == []


def test_it_is_built_once_and_again_for_other_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = script(
        tmp_path,
        'case "$*" in *--version*) echo 1;; *) echo built >>"' + str(tmp_path / "log") + '"; '
        'while [ "$1" != "-o" ]; do shift; done; echo code >"$2";; esac\n',
    )
    first = build("products", counting)
    assert build("products", counting) == first and first.read_text() == "code\n"
    monkeypatch.setattr(room, "FLAGS", (*room.FLAGS, "-O1"))
    assert build("products", counting) != first
    assert (tmp_path / "log").read_text() == "built\nbuilt\n"


def test_where_there_is_a_compiler_every_library_is_built() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    for source in sorted(SOURCES.glob("*.cpp")):
        assert build(source.stem, "g++").exists()  # else the tests of what it holds would skip, and nobody would know
