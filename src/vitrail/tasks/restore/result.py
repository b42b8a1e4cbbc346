"""Result type of restoration: the restored image, and how it was made."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.atomic_io import write_file
from vitrail.data.image_io import open_image
from vitrail.data.png_file import png_bytes
from vitrail.data.stored_image import StoredImage
from vitrail.errors import DataError
from vitrail.tasks.results import file_stem

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Restored:
    """A restored image, or the reason why there is none.

    Args:
        path: file of the degraded image, or its given name.
        stored: the restored pixels with alpha, profile and metadata of the source.
        scale: factor of both sides.
        tiles: number of tiles.
        seam_rms: root mean square difference of tiles where they were blended, in 8-bit levels; None if they were not.
        seam_max: largest difference there.
        seconds: time that it took.
        metadata: `keep` or `strip`.
        suffix: added to the name of the file.
        error: reason why the image could not be restored.
    """

    path: str
    stored: StoredImage | None = field(default=None, repr=False, compare=False)
    scale: int = 1
    tiles: int = 1
    seam_rms: float | None = None
    seam_max: float | None = None
    seconds: float = 0.0
    metadata: str = "keep"
    suffix: str = "_restored"
    error: str | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The restored image, `(Y, X, C)` of uint8 or uint16.

        Raises:
            DataError: the image could not be restored.
        """
        if self.stored is None:
            raise DataError(f"{self.path} has no restored image: {self.error or 'it was not kept'}")
        return self.stored.pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the restored image."""
        height, width = self.pixels.shape[:2]
        return width, height

    @property
    def image(self) -> Image.Image:
        """The restored image in 8 bits, without alpha."""
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def cells(self) -> tuple[str, ...]:
        """Return width, height, tiles, seam error and seconds, for CSV."""
        if self.error:
            return ()
        seam = "" if self.seam_rms is None else f"{self.seam_rms:.3f}"
        return (*map(str, self.size), str(self.tiles), seam, f"{self.seconds:.2f}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        assert self.stored is not None
        values: dict[str, Any] = {"path": self.path, "width": self.size[0], "height": self.size[1]}
        values |= {"scale": self.scale, "tiles": self.tiles, "bits": self.stored.pixels.dtype.itemsize * 8}
        if self.seam_rms is not None and self.seam_max is not None:
            values["seam"] = {"rms": round(self.seam_rms, 4), "max": round(self.seam_max, 4)}
        return {**values, "notes": list(self.stored.notes)}

    def draw(self, width: int = 960) -> Image.Image:
        """Return the degraded image, enlarged without interpolation, and the restored one, side by side.

        Args:
            width: width of the drawing in pixels.
        """
        after = self.image.convert("RGB")
        before = after if not Path(self.path).is_file() else open_image(self.path)
        side = max(width // 2 - 4, 1), max(round(after.height * (width // 2 - 4) / after.width), 1)
        sheet = Image.new("RGB", (2 * side[0] + 8, side[1]), "white")
        sheet.paste(before.resize(side, Image.Resampling.NEAREST), (0, 0))
        sheet.paste(after.resize(side, Image.Resampling.LANCZOS), (side[0] + 8, 0))
        return sheet

    def file_name(self) -> str:
        """Return the name of its file: that of the source with the suffix, as PNG."""
        return f"{file_stem(self.path)}{self.suffix}.png"

    def save(self, folder: Path) -> list[Path]:
        """Write the image as PNG, which holds 16 bits, alpha, profile and metadata; an old file is replaced at once.

        Raises:
            ResourceError: the disk is full; no part of a file is left.
        """
        if self.stored is None:
            return []
        path = folder / self.file_name()
        folder.mkdir(parents=True, exist_ok=True)
        keep = self.metadata == "keep"
        write_file(path, png_bytes(self.stored if keep else upright(self.stored), metadata=keep))
        return [path]

    def images(self) -> dict[str, bytes]:
        """Return the restored image as PNG, upright, with its bit depth and alpha and without metadata."""
        return {} if self.stored is None else {"restored": png_bytes(upright(self.stored), metadata=False)}

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        seam = "" if self.seam_rms is None else f", seams {self.seam_rms:.2f} rms, {self.seam_max:.1f} max of 255"
        tiles = f", {self.tiles} tiles" if self.tiles > 1 else ""
        return f"{self.path}: {self.size[0]} x {self.size[1]}{tiles}{seam}"


def upright(image: StoredImage) -> StoredImage:
    """Turn the pixels as EXIF orientation says, so that EXIF can be left out."""
    if not image.exif:
        return image
    exif = Image.Exif()
    exif.load(image.exif)
    turn = _TURNS.get(int(exif.get(_ORIENTATION, 1)))
    if turn is None:
        return image
    alpha = None if image.alpha is None else np.ascontiguousarray(turn(image.alpha))
    return replace(image, pixels=np.ascontiguousarray(turn(image.pixels)), alpha=alpha)


_TURNS: dict[int, Any] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
