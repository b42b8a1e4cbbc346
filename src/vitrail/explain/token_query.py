"""Queries: a token by its index, by its cell, or by a pixel of the image."""

from dataclasses import dataclass

from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.explain.geometry import cell_size
from vitrail.grid import Grid


@dataclass(frozen=True)
class Pixel:
    """A place in the image that the model saw; it means the cell that covers it, on whatever grid.

    Args:
        y: row, from the top.
        x: column, from the left.
    """

    y: int
    x: int


Query = int | tuple[int, int] | Pixel
"""A token by its index, a cell by its row and column, or the cell that covers a pixel."""


def centre(images: Tensor) -> Pixel:
    """Return the pixel in the middle of prepared images `(B, C, Y, X)`.

    Example:
        >>> import torch
        >>> centre(torch.zeros(1, 3, 8, 10))
        Pixel(y=4, x=5)
    """
    return Pixel(images.shape[-2] // 2, images.shape[-1] // 2)


def token_of(query: Query, grid: Grid, image: tuple[int, int]) -> int:
    """Return the index of the token that is meant.

    Args:
        query: the query.
        grid: grid of the tokens.
        image: rows and columns of the image in pixels.

    Raises:
        VitrailError: if there is no such token.

    Example:
        >>> grid = Grid(2, 3, prefix=1)
        >>> token_of((1, 2), grid, (32, 48)), token_of(Pixel(y=20, x=0), grid, (32, 48)), token_of(0, grid, (32, 48))
        (6, 4, 0)
    """
    if isinstance(query, int):
        if 0 <= query < grid.tokens:
            return query
        raise VitrailError(f"There is no token {query}: the block has {grid.tokens}, counted from 0.")
    row, column = _cell_under(query, grid, image) if isinstance(query, Pixel) else query
    if 0 <= row < grid.h and 0 <= column < grid.w:
        return grid.prefix + row * grid.w + column
    raise VitrailError(
        f"There is no cell in row {row}, column {column}: the block has {grid.h} rows and {grid.w} columns of cells, "
        "counted from 0."
    )


def _cell_under(pixel: Pixel, grid: Grid, image: tuple[int, int]) -> tuple[int, int]:
    if not (0 <= pixel.y < image[0] and 0 <= pixel.x < image[1]):
        raise VitrailError(
            f"There is no pixel in row {pixel.y}, column {pixel.x}: the model saw {image[0]} rows and {image[1]} "
            "columns of pixels, counted from 0."
        )
    height, width = cell_size(image, grid)
    return pixel.y // height, pixel.x // width
