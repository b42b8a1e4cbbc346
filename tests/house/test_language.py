"""The language of the library is the field's: an index of plain words per room, and no class name used twice."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from rooms import plain_words

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "vitrail"

LIMIT = 6.0
"""Plain words per 1,000 words of docstrings and comments."""

ROOMS = (
    "data",
    "explain",
    "export",
    "fused",
    "generation",
    "kernels",
    "bench",
    "inference",
    "machine",
    "report",
    "study",
    "serving",
    "trace",
    "models",
    "native",
    "parts",
    "tasks",
    "text",
    "training",
    "weights",
    "cli",
    "*.py",
)
"""Rooms that meet the limit; a room joins once it does, and none leaves."""

SAME_NAME: dict[str, str] = dict.fromkeys(
    ("TrainOptions", "PredictOptions", "EvaluateOptions", "GenerateOptions"),
    "each task has one in its options.py, found by that name",
)
"""Public class names defined twice, with the reason."""


@pytest.mark.parametrize("room", ROOMS)
def test_prose_uses_terms_of_the_field(room: str) -> None:
    files = SOURCE.glob(room) if room.endswith(".py") else (SOURCE / room).rglob("*.py")
    counts = {path: plain_words(path.read_text()) for path in files}
    plain, total = (sum(count) for count in zip(*counts.values(), strict=True))
    worst = sorted(counts, key=lambda path: -counts[path][0])[:5]
    assert 1000 * plain / total <= LIMIT, [f"{path.relative_to(SOURCE)}: {counts[path][0]}" for path in worst]


@pytest.mark.parametrize("folder", ["benchmarks", "recipes", "tests"])
def test_prose_outside_the_package_uses_terms_of_the_field(folder: str) -> None:
    counts = [plain_words(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    plain, total = (sum(count) for count in zip(*counts, strict=True))
    assert 1000 * plain / total <= LIMIT


def test_every_file_meets_the_limit() -> None:
    """Two plain words are allowed in a file too short for the limit: titles of papers have them, and so do examples."""
    counts = {path: plain_words(path.read_text()) for path in SOURCE.rglob("*.py")}
    above = {
        str(path.relative_to(SOURCE)): plain
        for path, (plain, total) in counts.items()
        if plain > 2 and 1000 * plain / total > LIMIT
    }
    assert not above


def test_plain_words_are_counted_in_docstrings_and_comments_only() -> None:
    text = '"""What a file says."""\n\nwho = "asks"  # beside it\n\n\ndef f():\n    """Return x."""\n'
    assert plain_words(text) == (3, 8)


def test_no_two_public_classes_have_one_name() -> None:
    homes = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(SOURCE)))
    twice = {name: files for name, files in homes.items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name not in SAME_NAME} == {}
    assert set(SAME_NAME) <= set(twice), "an exception that is no longer needed"
