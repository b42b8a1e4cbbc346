"""Sections of `vitrail explain` for detectors: pixels that change the score of a box, attention of its centre."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vitrail.data.view import fit_view
from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.explain.figures import SCALE, heat_tile
from vitrail.explain.heatmap import Heatmap, heatmap, smooth
from vitrail.explain.html_page import Section
from vitrail.explain.options import ExplainOptions
from vitrail.explain.overlay import seen
from vitrail.explain.token_query import Pixel
from vitrail.parts.detection.boxes import Boxes
from vitrail.parts.detection.detector import Detector
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.tasks.detect.batches import BoxSample, collate
from vitrail.tasks.inference import device_of, evaluating


def box_saliency(
    model: Detector, images: Tensor, box: Tensor, label: int, samples: int = 4, noise: float = 0.15, seed: int = 0
) -> Tensor:
    """Show how strongly each pixel moves the class score of a box, which stays in its place.

    S = mean over samples of max over channels of |d logit / d image|, at the image with noise added

    "Deep Inside Convolutional Networks", section 3, with the noise of "SmoothGrad"; the logit is that of the box head
    ("Fast R-CNN", section 2.1) on the region of the box.

    Args:
        model: a detector.
        images: one prepared image `(1, C, Y, X)`.
        box: left, top, right, bottom in its pixels.
        label: class number.
        samples: noisy copies; 1 with `noise=0` is the plain gradient.
        noise: standard deviation of the noise, as a share of the range of values.
        seed: of the noise.

    Returns:
        `(1, Y, X)`, at least 0.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = noise * (images.max() - images.min())
    total = torch.zeros_like(images)
    with evaluating(model), torch.enable_grad():
        for _ in range(samples):
            drawn = torch.randn(images.shape, generator=generator).to(images)
            noisy = (images + spread * drawn).detach().requires_grad_()
            logit = box_logits(model, noisy, box)[0, label + 1]  # class 0 of the head is the background
            (gradient,) = torch.autograd.grad(logit, noisy)
            total += gradient.abs()
    return (total / samples).amax(dim=1)


def box_logits(model: Detector, images: Tensor, box: Tensor) -> Tensor:
    """Return the class logits `(1, K + 1)` of one region, background first."""
    head = model.head
    levels = head.levels(model.backbone(images))
    size = (int(images.shape[2]), int(images.shape[3]))
    region = head.roi_heads.box_roi_pool(levels, [box[None].to(images)], [size])
    logits, _ = head.roi_heads.box_predictor(head.roi_heads.box_head(region))
    return logits


def detector_album(
    model: Detector,
    images: Iterable[tuple[str, Image.Image]],
    names: Sequence[str],
    pixel: Pixel | None = None,
    top: int = 3,
) -> Iterator[Section]:
    """Yield a section for each image: its best boxes, and why each is there.

    Args:
        model: a detector.
        images: names and PIL images.
        names: of the classes.
        pixel: row and column in the image; the smallest box around it alone is explained.
        top: number of boxes, best first, if no pixel is given.

    Raises:
        VitrailError: no box covers the pixel.
    """
    check_layers(model, "gradients through its layers are needed")
    for name, image in images:
        prepared = _prepare(model, image)
        with evaluating(model), torch.no_grad():
            found: Boxes = model(prepared.images, [prepared.size])[0]
        best = list(range(min(top, len(found.boxes))))
        chosen = best if pixel is None else [_around(found, pixel, prepared.scale, name)]
        said = [f"{names[int(found.labels[i])]} ({100 * found.scores[i]:.0f} %)" for i in chosen]
        text = f"The model finds {', '.join(said)}." if said else "The model finds no object."
        yield Section(name, text, {"Boxes": _figure(model, prepared, found, chosen, said)} if chosen else {})


class _Prepared(NamedTuple):
    """An image as the detector gets it: padded, the rows and columns without padding, its size over the source's."""

    images: Tensor
    size: tuple[int, int]
    scale: float


def _prepare(model: Model, image: Image.Image) -> _Prepared:
    view = fit_view(image.size, model.preprocess.size, longest=model.preprocess.size)
    pixels = np.array(view.image(image))
    empty = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
    batch = collate([BoxSample(pixels, *empty, None, 0)], model.preprocess)
    device = device_of(model)
    return _Prepared(batch.images.to(device), (pixels.shape[0], pixels.shape[1]), pixels.shape[0] / image.height)


def _around(found: Boxes, pixel: Pixel, scale: float, name: str) -> int:
    """Return the smallest box around a pixel of the source image."""
    x, y = (pixel.x + 0.5) * scale, (pixel.y + 0.5) * scale
    left, top, right, bottom = found.boxes.cpu().unbind(1)
    covers = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    if not covers.any():
        raise VitrailError(
            f"{name}: no box covers pixel {pixel.y},{pixel.x}. Without --pixel the best boxes are shown."
        )
    return int(((right - left) * (bottom - top)).masked_fill(~covers, torch.inf).argmin())


def _figure(model: Detector, prepared: _Prepared, found: Boxes, chosen: list[int], said: list[str]) -> FigureGrid:
    images, (rows, columns) = prepared.images, prepared.size
    [whole] = seen(images[..., :rows, :columns], model.preprocess)
    factor = whole.width / columns
    boxes = [tuple(float(v) * factor for v in found.boxes[i]) for i in chosen]
    tiles = [Tile(_outlined(whole, boxes), "best boxes" if len(boxes) > 1 else "the box")]
    for i, box, caption in zip(chosen, boxes, said, strict=True):
        heat = smooth(box_saliency(model, images, found.boxes[i], int(found.labels[i]))[:, :rows, :columns])
        tile = heat_tile(whole, Heatmap(heat, ""), f"{caption}: pixels that move its score")
        tiles.append(Tile(_outlined(tile.image, [box]), tile.caption))
        if attending_blocks(model):
            y, x = (round(float(found.boxes[i][[a, a + 2]].mean())) for a in (1, 0))
            attended = _attended(model, prepared, Pixel(min(y, rows - 1), min(x, columns - 1)))
            tile = heat_tile(whole, attended, f"{caption}: what its middle attends to in the last block")
            tiles.append(Tile(_outlined(tile.image, [box]), tile.caption))
    return FigureGrid("Boxes, and the pixels that they depend on", tiles, min(len(tiles), 3), SCALE, side=320)


def _attended(model: Model, prepared: _Prepared, pixel: Pixel) -> Heatmap:
    """Return the attention of a pixel in the last block, without the padding of the image."""
    found = heatmap(model, prepared.images, ExplainOptions("maps", query=pixel))
    factors = [whole / side for whole, side in zip(prepared.images.shape[-2:], prepared.size, strict=True)]
    spot = None if found.spot is None else (found.spot[0] * factors[0], found.spot[1] * factors[1])
    return found._replace(cover=(found.cover[0] * factors[0], found.cover[1] * factors[1]), spot=spot)


def _outlined(image: Image.Image, boxes: Sequence[tuple[float, ...]]) -> Image.Image:
    drawn = image.copy()
    pen, width = ImageDraw.Draw(drawn), max(1, max(image.size) // 200)
    for left, top, right, bottom in boxes:
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=(0, 255, 255), width=width)
    return drawn
