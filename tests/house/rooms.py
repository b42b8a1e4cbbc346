"""Measures of the source by room: files, lines, plain words, and `Any` in public signatures.

python tests/house/rooms.py           # of this tree
python tests/house/rooms.py 80dd224   # of a revision too, left of this tree
"""

import argparse
import ast
import io
import re
import subprocess
import tarfile
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vitrail.tasks.table import Table

ROOT = Path(__file__).parents[2]
PACKAGE = "src/vitrail"
TOP = "*.py"
"""Name of the files above all rooms."""

PLAIN = frozenset(["what", "who", "lies", "stands", "tells", "says", "asks", "answers", "beside", "behind"])
"""Words that mark a sentence about code in everyday terms; eleven codebases of the field have 0.2 to 2.8 per 1,000."""

VALUES_BY_NAME = re.compile(r"\b(?:dict|Mapping)\[str, Any\]")
"""Annotation of plain values by name, as JSON and YAML hold them."""


class RoomCounts(NamedTuple):
    """Counts of a room.

    Args:
        files: Python, C++ and header files.
        lines: of these files.
        plain: plain words in docstrings and comments of Python.
        words: all words in them.
        untyped: parameters, returned values and fields of public names whose annotation has `Any`.
    """

    files: int = 0
    lines: int = 0
    plain: int = 0
    words: int = 0
    untyped: int = 0

    def __add__(self, other: "RoomCounts") -> "RoomCounts":  # type: ignore[override]
        return RoomCounts(*map(sum, zip(self, other, strict=True)))

    @property
    def index(self) -> float:
        """Plain words per 1,000 words."""
        return 1000 * self.plain / max(self.words, 1)


def prose(text: str) -> str:
    """Return the docstrings and comments of a source file."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return " ".join([*docstrings, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def plain_words(text: str) -> tuple[int, int]:
    """Return the number of plain words and of all words in the prose of a source file."""
    words = re.findall(r"[a-z]+", prose(text).lower())
    return sum(word in PLAIN for word in words), len(words)


def untyped(tree: ast.Module) -> Iterator[str]:
    """Yield the parameters, returned values and fields of public names whose annotation has `Any`.

    Plain values by name are not counted: `dict[str, Any]`, `Mapping[str, Any]` and `**options: Any`.
    """
    yield from _untyped(tree, "")


def _untyped(owner: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in owner.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(node.name):
            given = node.args
            every = [*given.posonlyargs, *given.args, *([given.vararg] if given.vararg else []), *given.kwonlyargs]
            hints = {each.arg: each.annotation for each in every} | {"return": node.returns}
            yield from (f"{prefix}{node.name}: {name}" for name, hint in hints.items() if _has_any(hint))
        elif isinstance(node, ast.ClassDef) and _is_public(node.name):
            yield from _untyped(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and prefix and _has_any(node.annotation):
            name = ast.unparse(node.target)
            yield from [f"{prefix}{name}"] if _is_public(name) else []


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def _has_any(hint: ast.expr | None) -> bool:
    return hint is not None and re.search(r"\bAny\b", VALUES_BY_NAME.sub("", ast.unparse(hint))) is not None


def count_file(path: Path) -> RoomCounts:
    """Count one file."""
    text = path.read_text()
    lines = text.count("\n")
    if path.suffix != ".py":
        return RoomCounts(1, lines)
    return RoomCounts(1, lines, *plain_words(text), sum(1 for _ in untyped(ast.parse(text))))


def count_rooms(source: Path) -> dict[str, RoomCounts]:
    """Return the counts of each room of a package folder, by name."""
    found: dict[str, RoomCounts] = defaultdict(RoomCounts)
    for path in sorted(source.rglob("*")):
        if path.suffix in (".py", ".cpp", ".h"):
            inside = path.relative_to(source).parts
            found[inside[0] if len(inside) > 1 else TOP] += count_file(path)
    return dict(found)


def at(revision: str) -> dict[str, RoomCounts]:
    """Return the counts of each room in a revision."""
    packed = subprocess.run(["git", "archive", revision, PACKAGE], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
        return count_rooms(Path(folder) / PACKAGE)


def tables(counts: Mapping[str, Mapping[str, RoomCounts]]) -> list[Table]:
    """Return the tables: files and lines, index of plain words, and `Any`, each by room.

    Args:
        counts: of each room, by name of a revision.
    """
    rooms = sorted({room for each in counts.values() for room in each}, key=lambda room: (room == TOP, room))
    whole = {name: sum(each.values(), start=RoomCounts()) for name, each in counts.items()}

    def table(title: str, measures: Mapping[str, str], notes: Sequence[str] = ()) -> Table:
        columns = [f"{measure}, {name}" for name in counts for measure in measures]
        rows = []
        for room in [*rooms, "all"]:
            of_room = [{**each, "all": whole[name]}.get(room) for name, each in counts.items()]
            formats = [(each, f"{{:{how}}}", attribute) for each in of_room for attribute, how in measures.items()]
            rows.append([room, *("" if each is None else how.format(getattr(each, key)) for each, how, key in formats)])
        return Table(title, ["room", *columns], rows, columns, notes)

    return [
        table("Files and lines by room", {"files": ",", "lines": ","}, ["Python, C++ and headers."]),
        table("Index of plain words by room", {"index": ".1f"}, ["Per 1,000 words of docstrings and comments."]),
        table("Any in public signatures by room", {"untyped": ","}, ["Without plain values by name."]),
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", help="commits or branches to count too")
    options = parser.parse_args(words)
    counts = {name: at(name) for name in options.revisions} | {"now": count_rooms(ROOT / PACKAGE)}
    print("\n".join(table.section() for table in tables(counts)))


if __name__ == "__main__":
    main()
