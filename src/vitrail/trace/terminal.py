"""A trace as text: one row a step."""

from collections.abc import Callable, Sequence
from typing import Any

from vitrail.trace.frame import ModelTrace

Printer = Callable[..., None]


def print_trace(trace: ModelTrace, table: Printer) -> None:
    """Print facts, steps with their first formula, lens and twins.

    Args:
        trace: the trace.
        table: prints column names and rows of text, as `cli.table.print_table`.
    """
    print(trace.model)
    for label, value, note in trace.facts:
        print(f"{label.lower():<14} {value}  {note}")
    for note in trace.notes:
        print(f"note           {note}")
    print()
    columns = ("part", "step", "in", "out", "params", "multiply-adds", "formula")
    table(columns, list(_rows(trace)), right=("params", "multiply-adds"))
    if trace.lens:
        print("\nlogit lens: best class after each block, around all later blocks")
        rows = [
            [layer, own[0], f"{own[1]:.4f}"] for layer, own in zip(trace.lens["layers"], trace.lens["own"], strict=True)
        ]
        table(("after", "class", "probability"), rows, right=("probability",))
    if trace.twins:
        print("\nslow twin and fast kernel")
        table(
            ("attention", "reference", "difference", "loop"),
            [_twin(each) for each in trace.twins],
            right=("difference", "loop"),
        )


def _rows(trace: ModelTrace) -> Sequence[Sequence[str]]:
    rows = []
    for frame in trace.frames:
        shapes = ["·".join(map(str, shape)) for shape in (frame.shape_in, frame.shape_out)]
        macs = "?" if frame.multiply_adds is None else f"{frame.multiply_adds:,}" if frame.multiply_adds else ""
        first = [frame.group, frame.title, *shapes, f"{frame.parameters:,}" if frame.parameters else "", macs]
        lines = frame.formulas or [""]
        rows.append([*first, lines[0]])
        rows += [["", "", "", "", "", "", line] for line in lines[1:]]
    return rows


def _twin(twin: dict[str, Any]) -> list[str]:
    loop = "" if twin["loop"] is None else f"{twin['loop']:.1e}"
    return [twin["path"], twin["slow"], f"{twin['difference']:.1e}", loop]
