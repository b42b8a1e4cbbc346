"""Completion of an image from its upper rows, and the sheet of its samples."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.atomic_io import write_file
from vitrail.errors import VitrailError
from vitrail.generation.generate import generate
from vitrail.generation.sampling import Greedy, Sample
from vitrail.parts.model import Model
from vitrail.tasks.complete.options import GenerateOptions
from vitrail.tasks.data_url import to_png
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import file_stem

_GAP, _GREY, _SIDE = 4, 200, 112


@dataclass(frozen=True)
class Completion:
    """An image, its given rows, and the samples; or the reason why there are none.

    Args:
        path: file of the image.
        image: `(C, Y, X)` in the colours of the model, in [0, 1].
        samples: `(S, C, Y, X)`.
        rows: rows that were given.
        error: reason.
    """

    path: str
    image: Tensor | None = None
    samples: Tensor | None = None
    rows: int = 0
    error: str | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the number of samples and of given rows."""
        return () if self.samples is None else (str(len(self.samples)), str(self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.samples is None:
            return {"path": self.path, "error": self.error}
        return {"path": self.path, "samples": len(self.samples), "rows": self.rows}

    def draw(self) -> Image.Image:
        """Return one image: the input, its given rows, and each sample."""
        if self.image is None or self.samples is None:
            raise VitrailError(f"{self.path} has no completion: {self.error}")
        tiles = [_picture(tile) for tile in (self.image, self._given(self.image), *self.samples)]
        side = tiles[0].width
        sheet = Image.new("RGB", ((side + _GAP) * len(tiles) - _GAP, tiles[0].height), "#ffffff")
        for place, tile in enumerate(tiles):
            sheet.paste(tile, ((side + _GAP) * place, 0))
        return sheet

    def _given(self, image: Tensor) -> Tensor:
        given = image.clone()
        given[:, self.rows :] = _GREY / 255
        return given

    def images(self) -> dict[str, bytes]:
        """Return the given rows and the samples as PNG, enlarged without smoothing."""
        if self.samples is None or self.image is None:
            return {}
        tiles = {"given": self._given(self.image), **{f"sample_{i}": tile for i, tile in enumerate(self.samples)}}
        return {name: to_png(_picture(tile)) for name, tile in tiles.items()}

    def save(self, folder: Path) -> list[Path]:
        """Write the sheet of the samples."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{file_stem(self.path)}_completed.png"
        self.write(path)
        return [path]

    def write(self, path: Path) -> None:
        """Write the sheet to a file; its ending selects the format."""
        if path.suffix.lower() not in (".png", ".webp", ".gif", ".bmp"):
            raise VitrailError(f"{path} is to hold an image without loss: let it end in .png or .webp.")
        buffer = BytesIO()
        self.draw().save(buffer, Image.registered_extensions()[path.suffix.lower()])
        write_file(path, buffer.getvalue())

    def __str__(self) -> str:
        if self.samples is None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: {len(self.samples)} completions of {self.rows} rows"


class PixelShape(Protocol):
    """Config of a model of pixels, as far as images depend on it."""

    @property
    def side(self) -> int:
        """Rows and columns of an image."""
        ...

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        ...


def to_pixels(image: Image.Image, config: PixelShape) -> Tensor:
    """Return an image as `(C, Y, X)` in [0, 1], resized to the side of the model.

    Example:
        >>> from types import SimpleNamespace
        >>> to_pixels(Image.new("RGB", (9, 5), "#ff0000"), SimpleNamespace(side=2, channels=3))[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    image = image.convert("L" if config.channels == 1 else "RGB")
    if image.size != (config.side, config.side):
        image = image.resize((config.side, config.side), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).reshape(config.side, config.side, -1)
    return pixels.permute(2, 0, 1) / 255


def complete(model: Model, pixels: Tensor, options: GenerateOptions, name: str = "image") -> Completion:
    """Draw the missing rows of an image, pixel by pixel.

    A sample is a function of the image, the seed and its number, whatever else is generated.

    Args:
        model: a `PixelModel`.
        pixels: `(C, Y, X)` in [0, 1].
        options: samples, given rows, choice of colours.
        name: name of the image.
    """
    side = model.config.side
    rows = min(round(options.keep * side), side - 1)
    greedy = options.temperature == 0
    choose = Greedy() if greedy else Sample(options.temperature, options.top_k, options.top_p, options.seed)
    with inference_mode_for(model) as device:
        ids = model.quantise(pixels[None].to(device))
        prompt = [model.start, *ids[0, : rows * side].tolist()]
        drawn = generate(model, [prompt], side * (side - rows), choose, samples=options.samples)
        whole = torch.tensor([prompt[1:] + new for new in drawn], device=device)
        images = model.render(torch.cat([ids, whole]), side).cpu().clone()
    return Completion(name, images[0], images[1:], rows)


def _picture(pixels: Tensor) -> Image.Image:
    """Return `(C, Y, X)` in [0, 1] as an image, enlarged without smoothing."""
    planes = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else np.ascontiguousarray(planes)).convert("RGB")
    scale = max(1, _SIDE // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
