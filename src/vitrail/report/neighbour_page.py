"""A page of nearest neighbours: for some inputs those whose vectors have the largest cosines with theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.atomic_io import write_file
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.explain.html_page import Section, page
from vitrail.inference.embed import Embeddings, neighbours

_SIDE = 128


def write_neighbours(
    path: Path, found: Embeddings, items: Mapping[str, Any], count: int, queries: int = 12, command: str = ""
) -> Path:
    """Write a page with the nearest neighbours of evenly spaced inputs.

    Args:
        path: the HTML file.
        found: vectors of the inputs.
        items: inputs by name: images with `read`, or texts with `text`.
        count: neighbours of each.
        queries: number of inputs that are shown with their neighbours.
        command: command line, for the foot of the page.
    """
    total = len(found.names)
    chosen = sorted({int(i) for i in np.linspace(0, total - 1, min(queries, total)).round()})
    rows = neighbours(found.vectors, chosen, count)
    sections = [_section(found, items, query, row) for query, row in zip(chosen, rows, strict=True)]
    text = f"{total:,} inputs, vectors of {found.vectors.shape[1]} numbers; the nearest by cosine, the best first."
    write_file(path, page("Nearest neighbours", text, sections, command, "embed").encode())
    return path


def _section(found: Embeddings, items: Mapping[str, Any], query: int, row: list[tuple[int, float]]) -> Section:
    names = [found.names[query], *(found.names[number] for number, _ in row)]
    cosines = ["query", *(f"{cosine:.3f}" for _, cosine in row)]
    if hasattr(items[names[0]], "text"):
        text = " · ".join(f"{cosine}: {items[name].text}" for name, cosine in zip(names[1:], cosines[1:], strict=True))
        return Section(items[names[0]].text, text or "no others", {})
    captions = [f"{cosine} {Path(name).name}" for name, cosine in zip(names, cosines, strict=True)]
    tiles = [Tile(items[name].read().convert("RGB"), note) for name, note in zip(names, captions, strict=True)]
    title = f"neighbours of {Path(names[0]).name}"
    return Section(Path(names[0]).name, "", {title: FigureGrid(title, tiles, len(tiles), side=_SIDE)})
