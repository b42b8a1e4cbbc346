"""A restoration model on images of any size, in tiles by the memory budget."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vitrail.models import find
from vitrail.parts.model import Model
from vitrail.parts.restorer_reach import reach
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.peak_memory import pixel_bytes
from vitrail.tasks.tiling import Seams, TilePlan, fitting_tile, plan_tiles, run_tiles

BLEND_WINDOWS = 2
"""Halo of fast tiles, in windows."""
LARGEST_TILE = 512


class TiledModel:
    """Restores arrays of any size with a model.

    Args:
        model: a restorer on its device.
        tiling: `exact`, `fast` or `none`.
        memory: GiB that a forward pass may take.
        run: function of a tile, such as the optimized model; by default the model.
    """

    def __init__(
        self,
        model: Model,
        tiling: str = "exact",
        memory: float = 1.5,
        run: Callable[[Tensor], Tensor] | None = None,
    ):
        self.model, self.tiling, self.memory = model, tiling, memory
        self.run: Callable[[Tensor], Tensor] = run or model
        self.scale: int = model.scale

    @cached_property
    def halo(self) -> int:
        """Halo of the tiles in input pixels."""
        return reach(self.model) if self.tiling == "exact" else BLEND_WINDOWS * self.model.multiple

    @cached_property
    def tile(self) -> int:
        """Side of the tiles in input pixels, by the memory budget."""
        with torch.device("meta"):
            meta = find(self.model.variant).build(self.model.config)
        each = pixel_bytes(self.model.eval(), meta, self.model.config.in_channels)
        side = fitting_tile(self.memory * 2**30, each, self.halo, self.model.multiple)
        return min(side, max(LARGEST_TILE, 4 * self.halo) // self.model.multiple * self.model.multiple)

    def plan(self, height: int, width: int) -> TilePlan:
        """Return the tiles of an image."""
        if self.tiling == "none":
            return plan_tiles(height, width, height * width + 1, 0, 1, self.scale)
        return plan_tiles(
            height, width, self.tile, self.halo, self.model.multiple, self.scale, blend=self.tiling == "fast"
        )

    def restore(
        self,
        pixels: np.ndarray,
        top: float,
        finish: Callable[[np.ndarray], np.ndarray] = lambda strip: strip,
        progress: Callable[[int, int], None] = lambda done, count: None,
    ) -> tuple[np.ndarray, TilePlan, Seams]:
        """Restore one image.

        Args:
            pixels: `(Y, X, C)`, of any type, in 0..top.
            top: the value of white.
            finish: turns float rows in 0..top into rows of the result, for example rounds them.
            progress: receives numbers of tiles.

        Returns:
            The image `(s Y, s X, C)`, its tiles, and how far blended tiles disagree, in 0..1.
        """
        height, width = pixels.shape[:2]
        plan, out = self.plan(height, width), None

        def read(rows: slice, columns: slice) -> Tensor:
            values = torch.from_numpy(np.ascontiguousarray(pixels[rows, columns], dtype=np.float32))
            return (values.permute(2, 0, 1)[None] / top).to(device)

        def write(row: int, strip: Tensor) -> None:
            nonlocal out
            values = finish(strip.permute(1, 2, 0).cpu().numpy() * top)
            if out is None:
                out = np.empty((height * self.scale, width * self.scale, values.shape[2]), values.dtype)
            out[row : row + len(values)] = values

        with inference_mode_for(self.model) as device:
            seams = run_tiles(plan, read, self.run, write, progress)
        assert out is not None
        return out, plan, seams
