"""Tables: drawn on a terminal, plain columns in a pipe, so that `grep` and `awk` read them."""

import sys
from collections.abc import Iterable, Sequence


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> None:
    """Print rows under their column names.

    Args:
        columns: the names, one a column.
        rows: the cells, as text.
        right: names of the columns to align to the right, such as numbers.

    Example:
        >>> print_table(["model", "size"], [["vit", "224"], ["swin", "96"]], right=["size"])
        model  size
        vit     224
        swin     96
    """
    rows = [list(row) for row in rows]
    if sys.stdout.isatty():
        _draw(columns, rows, set(right))
    else:
        _columns(columns, rows, set(right))


def _columns(columns: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    widths = [max(len(line[i]) for line in [list(columns), *rows]) for i in range(len(columns))]
    for line in [list(columns), *rows]:
        cells = zip(columns, line, widths, strict=True)
        padded = [cell.rjust(width) if name in right else cell.ljust(width) for name, cell, width in cells]
        print("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table, console = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", pad_edge=False), Console()
    # The first column is for copying: it is wrapped only if little room would be left. Numbers are never cut.
    first = max(map(len, [columns[0], *(row[0] for row in rows)]))
    for i, name in enumerate(columns):
        whole = name in right or (i == 0 and first <= 0.6 * console.width)
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
