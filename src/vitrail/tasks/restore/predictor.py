"""Restoring images, one after the other and tile by tile."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np

from vitrail.data.image_io import ImageDecodeError, read_size
from vitrail.data.matlab_resize import imresize
from vitrail.data.stored_image import StoredImage, read_stored
from vitrail.errors import DataError
from vitrail.parts.model import Model
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.restore.options import PredictOptions
from vitrail.tasks.restore.result import Restored
from vitrail.tasks.restore.runner import choose_runner
from vitrail.tasks.restore.tiled_model import TiledModel
from vitrail.tasks.results import Notify, file_stem
from vitrail.tasks.table import Table

RESTORED = 2**24
"""Most pixels of an image restored for a client of a server."""
REPEATED = 4
"""Overhead of tiles from which a result says that it was slow to compute."""
_GREY = np.array([0.299, 0.587, 0.114])


class RestorePredictor:
    """A model that restores images of any size, bit depth and kind.

    Images are read one at a time: a large one is in memory once, and its result is handed on before the next is read.

    Args:
        model: a restorer on its device.
        options: tiling, memory, metadata.
        count: number of images of the job, None if it is unknown.
        notify: receives a line about the model that runs.

    Attributes:
        on_part: receives the share of the current image that is done, after each tile.
        max_pixels: most pixels of an image that a server accepts.
    """

    csv_columns = ("width", "height", "tiles", "seam_rms", "seconds")
    saved_name = staticmethod(file_stem)
    gate = None
    sequential = True

    def __init__(
        self,
        model: Model,
        options: PredictOptions,
        count: int | None = None,
        notify: Notify = lambda choice: None,
    ):
        self.model, self.options = model, options
        self.on_part: Callable[[float], None] = lambda share: None
        run = choose_runner(model, options.precision or "fp32", options.optimize, count, notify)
        self.tiled = TiledModel(model, options.tiling, options.memory, run)
        self.channels: int = model.config.in_channels
        self.max_pixels = RESTORED // self.tiled.scale**2

    def job(self) -> list[object]:
        """Return the options that determine the restored images."""
        return [self.options.tiling, self.options.metadata, self.options.suffix]

    def load(self, item: SourceImage) -> SourceImage:
        """Check that an image can be opened; it is decoded when its turn comes."""
        if item.held is None:
            read_size(item.name if item.content is None else item.content)
        return item

    def predict(self, batch: list[tuple[SourceImage, SourceImage]]) -> Iterator[Restored]:  # type: ignore[override]
        """Yield the restored images one by one."""
        for item, _ in batch:
            try:
                yield self.restore(item)
            except DataError as error:
                yield self.failure(item, error.reason if isinstance(error, ImageDecodeError) else str(error))

    def restore(self, item: SourceImage) -> Restored:
        """Restore one image."""
        started = perf_counter()
        source = stored_image(item)
        top, kind = source.top, source.pixels.dtype

        def finish(strip: np.ndarray) -> np.ndarray:
            if not np.isfinite(strip).all():
                raise DataError("the model gives pixels that are not finite; its weights are broken")
            grey = strip.shape[2] == 3 and source.pixels.shape[2] == 1
            values = strip.mean(2, keepdims=True) if grey else strip
            return np.clip(np.round(values), 0, top).astype(kind)

        pixels, notes = self._channels(source)
        out, plan, seams = self.tiled.restore(pixels, top, finish, lambda done, count: self.on_part(done / count))
        alpha = (
            source.alpha if source.alpha is None or self.tiled.scale == 1 else enlarge(source.alpha, self.tiled.scale)
        )
        if plan.overhead > REPEATED:
            notes.append(
                f"exact tiles read each pixel {plan.overhead:.0f} times; more --memory or --tiling fast is faster"
            )
        blended = plan.blend and plan.count > 1
        return Restored(
            path=item.name,
            stored=replace(source, pixels=out, alpha=alpha, notes=(*source.notes, *notes)),
            scale=self.tiled.scale,
            tiles=plan.count,
            seam_rms=255 * seams.rms if blended else None,
            seam_max=255 * seams.largest if blended else None,
            seconds=perf_counter() - started,
            metadata=self.options.metadata,
            suffix=self.options.suffix,
        )

    def _channels(self, source: StoredImage) -> tuple[np.ndarray, list[str]]:
        """Return the pixels with the channels of the model."""
        pixels = source.pixels
        if pixels.shape[2] == self.channels:
            return pixels, []
        if self.channels == 3:
            return np.broadcast_to(pixels, (*pixels.shape[:2], 3)), []
        return (pixels @ _GREY)[..., None], ["colour was made grey, because the model has one channel"]

    def failure(self, item: SourceImage, reason: str) -> Restored:
        """Return the result of an image that cannot be restored."""
        return Restored(item.name, error=reason)

    def table(self, results: Sequence[Restored]) -> Table:
        """Return one image per row."""
        columns = ["image", "size", "tiles", "seam error", "seconds"]
        rows = [[r.path, f"{r.size[0]} x {r.size[1]}", str(r.tiles), _seam(r), f"{r.seconds:.1f}"] for r in results]
        return Table("", columns, rows, right=columns[1:])


def stored_image(item: SourceImage) -> StoredImage:
    """Read an image of a job: a file, or one in memory."""
    if item.content is not None:
        return read_stored(item.content)
    if item.held is None:
        return read_stored(item.name)
    pixels = np.asarray(item.held if item.held.mode in ("L", "RGB") else item.held.convert("RGB"))
    return StoredImage(pixels.reshape(*pixels.shape[:2], -1))


def enlarge(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge an alpha channel bicubically.

    Example:
        >>> enlarge(np.full((2, 3), 255, np.uint8), 2).shape
        (4, 6)
    """
    top = int(np.iinfo(alpha.dtype).max)
    return np.clip(np.round(imresize(alpha.astype(np.float32), scale)), 0, top).astype(alpha.dtype)


def _seam(result: Restored) -> str:
    return "" if result.seam_rms is None else f"{result.seam_rms:.2f} rms, {result.seam_max:.1f} max of 255"
