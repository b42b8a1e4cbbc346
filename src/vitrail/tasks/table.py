"""A table as a value: the command prints it in columns, a page holds it in markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under their names.

    Args:
        title: what it shows.
        columns: the names, one a column; those in `right` are aligned to the right.
        rows: the cells, as text.
        right: names of columns that hold numbers.
        notes: sentences below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Write the rows as a markdown table.

        Example:
            >>> print(Table("Sizes", ["model", "size"], [["vit", "224"]], right=["size"]).markdown())
            | model | size |
            |---|---:|
            | vit | 224 |
        """
        rule = "|" + "|".join("---:" if name in self.right else "---" for name in self.columns) + "|"
        return "\n".join([_line(self.columns), rule, *map(_line, self.rows)])

    def section(self) -> str:
        """Write title, table and notes as a section of a page."""
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", self.markdown(), *([""] if notes else []), *notes, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
