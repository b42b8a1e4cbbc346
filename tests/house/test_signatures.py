"""Public signatures state types: `Any` is rare, and its number in each room only falls."""

import ast
from pathlib import Path

from rooms import count_rooms, untyped

SOURCE = Path(__file__).parents[2] / "src" / "vitrail"

UNTYPED = {
    "*.py": 3,
    "cli": 3,
    "compress": 1,
    "data": 2,
    "edits": 1,
    "explain": 1,
    "export": 4,
    "fused": 15,
    "inference": 4,
    "kernels": 2,
    "models": 4,
    "native": 3,
    "parts": 14,
    "report": 1,
    "serving": 3,
    "study": 2,
    "tasks": 38,
    "trace": 2,
    "training": 6,
    "weights": 6,
}
"""Parameters, returned values and fields of public names with `Any`, by room: foreign objects, values of any task."""


def test_no_room_gains_an_untyped_signature() -> None:
    """Names of those in a file: `list(untyped(tree))`. A number that fell is lowered here, so it cannot rise again."""
    assert {room: counts.untyped for room, counts in count_rooms(SOURCE).items() if counts.untyped} == UNTYPED


def test_what_counts_as_untyped() -> None:
    text = """
def f(a: Any, b: dict[str, Any], *c: list[Any], d: "Any" = 1, **e: Any) -> Callable[..., Any]: ...
def _g(a: Any) -> Any: ...
class A:
    x: Any
    _y: Any
    z: Mapping[str, Any]
    async def h(self) -> tuple[Any, dict[str, Any]]: ...
class _B:
    x: Any
x: Any = 1
"""
    assert list(untyped(ast.parse(text))) == ["f: a", "f: c", "f: d", "f: return", "A.x", "A.h: return"]
