"""Table as a value, for the terminal or for markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Table with named columns.

    Args:
        title: title of the table.
        columns: names of the columns; those in `right` are right-aligned.
        rows: the cells, as text.
        right: names of numeric columns.
        notes: sentences below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Return the rows as a markdown table.

        Example:
            >>> print(Table("Sizes", ["model", "size"], [["vit", "224"]], right=["size"]).markdown())
            | model | size |
            |---|---:|
            | vit | 224 |
        """
        rule = "|" + "|".join("---:" if name in self.right else "---" for name in self.columns) + "|"
        return "\n".join([_line(self.columns), rule, *map(_line, self.rows)])

    def section(self) -> str:
        """Return title, table and notes as a section of a report."""
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", self.markdown(), *([""] if notes else []), *notes, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
