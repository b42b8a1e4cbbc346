"""Rules of the native sources: argument structs, checked sizes, and one format."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vitrail.native.build import SOURCES, _texts
from vitrail.native.prototypes import Arguments, prototypes, structs

MOST = 6
"""Parameters of an exported function; one with more takes an argument struct."""
LIBRARIES = sorted(source.stem for source in SOURCES.glob("*.cpp"))


def text_of(name: str) -> str:
    return "\n".join(text for _, text in _texts(name))


def long_lists(text: str) -> list[str]:
    return [name for name, (_, arguments) in prototypes(text).items() if len(arguments) > MOST]


def unchecked(text: str) -> set[str]:
    """Return the structs that an exported function takes and whose size is not exported."""
    taken = {kind._type_ for _, arguments in prototypes(text).values() for kind in arguments if hasattr(kind, "_type_")}
    names = {kind.__name__ for kind in taken if isinstance(kind, type) and issubclass(kind, Arguments)}
    return names - set(re.findall(r"\bSIZE_OF\((\w+)\)", text))


@pytest.mark.parametrize("name", LIBRARIES)
def test_exported_functions_take_few_arguments_or_a_struct_of_known_size(name: str) -> None:
    text = text_of(name)
    assert prototypes(text), "no exported function was found"
    assert long_lists(text) == [] and unchecked(text) == set()


def test_the_rules_find_an_offender() -> None:
    many = ", ".join(f"int a{i}" for i in range(MOST + 1))
    struct = "struct InArgs { int a; };"
    assert long_lists(f"void vitrail_f({many}) {{ }}") == ["vitrail_f"]
    assert unchecked(f"{struct} void vitrail_f(const InArgs& a) {{ }}") == {"InArgs"}
    assert unchecked(f"{struct} SIZE_OF(InArgs) void vitrail_f(const InArgs& a) {{ }}") == set()


def test_a_struct_has_one_declaration() -> None:
    declared = [
        name for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp") for name in structs_in(path.read_text())
    ]
    assert [name for name, count in Counter(declared).items() if count > 1] == []


def structs_in(text: str) -> list[str]:
    return re.findall(r"\bstruct (\w+Args) \{", text)


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_declared_struct_is_understood(name: str) -> None:
    text = text_of(name)
    assert set(structs(text)) == set(structs_in(text))


def formatter() -> str | None:
    """Return clang-format in the version of the dev extra; versions differ in details."""
    found = shutil.which("clang-format", path=Path(sys.executable).parent) or shutil.which("clang-format")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout if found else ""
    return found if re.search(r"version 23\.", version) else None


@pytest.mark.skipif(formatter() is None, reason="no clang-format 23: pip install 'clang-format>=23,<24'")
def test_sources_have_the_format_of_clang_format() -> None:
    files = [str(path) for path in sorted(SOURCES.iterdir()) if path.suffix in (".h", ".cpp")]
    done = subprocess.run([str(formatter()), "--dry-run", *files], capture_output=True, text=True, check=True)
    assert done.stderr[:1000] == "", "run `clang-format -i src/vitrail/native/*.cpp src/vitrail/native/*.h`"
