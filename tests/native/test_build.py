"""Building: once, whole or not at all, and with a reason where it cannot be."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vitrail.cache import ABANDONED
from vitrail.native import build as room
from vitrail.native.build import SOURCES, Unavailable, build, compiler, library, missing, refusal


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_FOUND", {})


def script(folder: Path, text: str) -> str:
    path = folder / "compile"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        compiler()
    assert "no C++ compiler" in (refusal(torch.float32) or "")
    assert "not torch.float64" in (refusal(torch.float64) or "")


def test_compiler_errors_are_reported_and_partial_builds_removed(tmp_path: Path) -> None:
    broken = script(tmp_path, 'echo "no such instruction" >&2; exit 1\n')
    with pytest.raises(Unavailable, match="no such instruction"):
        build("gemm", (broken,))
    assert list((tmp_path / "native").iterdir()) == []


def test_a_library_is_built_once_per_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = script(
        tmp_path,
        'case "$*" in *--version*) echo 1;; *) echo built >>"' + str(tmp_path / "log") + '"; '
        'while [ "$1" != "-o" ]; do shift; done; echo code >"$2";; esac\n',
    )
    first = build("gemm", (counting,))
    assert build("gemm", (counting,)) == first and first.read_text() == "code\n"
    monkeypatch.setattr(room, "FLAGS", (*room.FLAGS, "-O1"))
    assert build("gemm", (counting,)) != first
    assert (tmp_path / "log").read_text() == "built\nbuilt\n"


def test_a_failed_compiler_is_not_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", script(tmp_path, f'case "$*" in *-o*) echo >>"{tmp_path}/log";; esac; exit 1\n'))
    for _ in range(3):
        assert "cannot build attention.cpp" in (missing("attention") or "")
        with pytest.raises(Unavailable, match="cannot build attention"):
            library("attention")
    assert (tmp_path / "log").read_text() == "\n\n"  # with OpenMP and without


def test_required_libraries_are_built_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two compilers ends only once the other has begun."""
    waiting = script(
        tmp_path,
        'case "$*" in *--version*) exit 0;; *attention.cpp) own=a other=b;; *) own=b other=a;; esac; '
        f'>"{tmp_path}/$own"; '
        f'for _ in $(seq 200); do [ -e "{tmp_path}/$other" ] && break; sleep 0.05; done; '
        f'[ -e "{tmp_path}/$other" ] && echo met >&2; exit 1\n',
    )
    monkeypatch.setenv("CXX", waiting)
    monkeypatch.setattr(room.os, "cpu_count", lambda: 2)
    assert str(missing("attention", "patches")).endswith("cannot build attention.cpp: met")
    assert str(missing("patches")).endswith("cannot build patches.cpp: met")


def test_every_library_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # in the usual cache: libraries built by other tests are reused, for all of it takes minutes
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    # Else the tests of what it holds would skip, and nobody would know.
    assert missing(*sorted(source.stem for source in SOURCES.glob("*.cpp"))) is None


def test_a_damaged_library_is_rebuilt() -> None:
    try:
        place = build("image_resize", compiler())
    except Unavailable as reason:
        pytest.skip(str(reason))
    place.write_bytes(place.read_bytes()[:100])
    assert missing("image_resize") is None and place.stat().st_size > 1000


def test_an_unwritable_cache_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "file"))
    assert refusal(torch.float32) is not None and not room.built("gemm")


def test_libraries_are_separate_per_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    here = room._place("gemm", ("g++",))
    monkeypatch.setattr(room, "cpu_flags", lambda: "avx2 avx512f avx512_vbmi")
    assert room._place("gemm", ("g++",)) != here


def test_a_header_rebuilds_only_what_includes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a.cpp": '#include "x.h"\n',
        "b.cpp": '#include <vector>\n# include "z.h"\n// #include "x.h"\n',
        "x.h": '#pragma once\n#include "y.h"\n',
        "y.h": '#include "x.h"\n#include "z.h"\n',
        "z.h": "",
        "alone.h": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(room, "SOURCES", tmp_path)

    def rebuilt(changed: str) -> set[str]:
        before = {name: room._place(name, ("g++",)) for name in "ab"}
        (tmp_path / changed).write_text(files[changed] + "// changed\n")
        return {name for name in "ab" if room._place(name, ("g++",)) != before[name]}

    changes = {name: "".join(sorted(rebuilt(name))) for name in files}
    assert changes == {"a.cpp": "a", "b.cpp": "b", "x.h": "a", "y.h": "a", "z.h": "ab", "alone.h": ""}


def test_every_included_header_is_there() -> None:
    headers = {name for source in SOURCES.glob("*.cpp") for name, _ in room._texts(source.stem)[1:]}
    assert headers == {header.name for header in SOURCES.glob("*.h")}


def test_flags_in_cxx_are_passed_to_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = script(tmp_path, f'echo "$@" >>"{tmp_path}/log"; exit 1\n')
    monkeypatch.setenv("CXX", f"{wrapper} g++ '-DNAME=two words'")
    command = compiler()
    assert command == (wrapper, "g++", "-DNAME=two words")
    with pytest.raises(Unavailable, match=r"g\+\+ '-DNAME=two words' cannot build gemm.cpp"):
        build("gemm", command)
    version, *builds = (tmp_path / "log").read_text().splitlines()
    assert version == "g++ -DNAME=two words --version"
    assert len(builds) == 2 and all(line.startswith("g++ -DNAME=two words -O3") for line in builds)
    assert len({room._place("gemm", words) for words in (command, command[:2], command[:1])}) == 3


def test_quoted_paths_are_one_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my tools").mkdir()
    path = script(tmp_path / "my tools", "exit 1\n")
    monkeypatch.setenv("CXX", path)
    assert compiler() == (path,)
    monkeypatch.setenv("CXX", f"'{path}' --quick")
    assert compiler() == (path, "--quick")


def test_unterminated_quotes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ '-DNAME")
    with pytest.raises(Unavailable, match="No closing quotation"):
        compiler()
    assert "CXX is no command" in str(missing("gemm")) and not room.built("gemm")


def test_leftovers_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    begun, cache = tmp_path / "begun", tmp_path / "native"
    endless = script(tmp_path, f'case "$*" in *--version*) exit 0;; esac; echo $$ >"{begun}"; exec sleep 60\n')
    code = f"from vitrail.native.build import build; build('gemm', ({endless!r},))"
    building = subprocess.Popen([sys.executable, "-c", code])
    while not (begun.exists() and begun.read_text()) and building.poll() is None:
        time.sleep(0.01)
    building.send_signal(signal.SIGKILL)
    building.wait()
    os.kill(int(begun.read_text()), signal.SIGKILL)
    (left,) = cache.iterdir()
    counting = script(tmp_path, 'while [ "$1" != "-o" ]; do [ -n "$1" ] || exit 0; shift; done; echo code >"$2"\n')
    made = build("gemm", (counting,))
    assert set(cache.iterdir()) == {left, made}  # somebody may still be at work there
    os.utime(left, (time.time() - 2 * ABANDONED,) * 2)
    again = build("patches", (counting,))
    assert set(cache.iterdir()) == {made, again}
