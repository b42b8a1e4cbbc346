"""Output of `vitrail explain`: a folder of images and an HTML page."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vitrail.atomic_io import make_folder, write_file
from vitrail.errors import VitrailError
from vitrail.explain.blocks import name_of
from vitrail.explain.figure_grid import FigureGrid, Tile
from vitrail.explain.figures import SCALE, heat_tile, methods_scene
from vitrail.explain.gallery import DISTANCE, portraits, prepare, scenes
from vitrail.explain.heatmap import heatmap
from vitrail.explain.html_page import Section, page
from vitrail.explain.options import AUTO, ExplainOptions, resolve_options
from vitrail.explain.overlay import seen
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating

LEARNED = "What the model learned"


def album(
    model: Model,
    images: Iterable[tuple[str, Image.Image]],
    names: Sequence[str],
    look: ExplainOptions = AUTO,
    top: int = 3,
) -> Iterator[Section]:
    """Yield the sections of a report: each image, then the figures of the weights.

    Args:
        model: a model from `create_model` or `load_model`.
        images: names and PIL images.
        names: of the classes.
        look: options of the explanation; by default every method that the model supports.
        top: number of classes to name for each image.

    Raises:
        VitrailError: if there is no image, or the model does not support the options.
    """
    drawn: list[Tensor] = []
    for name, image in images:
        batch = prepare(model, [image])
        yield Section(name, describe(model, batch, names, top), draw(model, batch, look))
        drawn = [*drawn, batch][:8]
    if not drawn:
        raise VitrailError("There are no images to look at; give at least one.")
    if look == AUTO:
        learned = portraits(model, torch.cat(drawn))
        but = f"; attention distances are measured on {_count(drawn)}" if DISTANCE in learned else ""
        yield Section(LEARNED, f"{name_of(model)}; the same for every image{but}.", learned)


def draw(model: Model, images: Tensor, look: ExplainOptions = AUTO) -> dict[str, FigureGrid]:
    """Draw one image (a batch of one): every method by default, or the selected one."""
    if look == AUTO:
        return {"Where it looks": methods_scene(model, images)} | scenes(model, images)
    look = resolve_options(model, look)
    found, [image] = heatmap(model, images, look), seen(images, model.preprocess)
    tiles = [Tile(image, "what the model saw"), heat_tile(image, found, look.describe())]
    return {look.method.capitalize(): FigureGrid(found.title, tiles, 2, SCALE, side=320)} | scenes(model, images, look)


def describe(model: Model, images: Tensor, names: Sequence[str], top: int = 3) -> str:
    """Describe the prediction for an image: class names with probabilities, or with shares of the pixels."""
    if not names:
        return "The model has no classes."
    with evaluating(model), torch.no_grad():
        chances = model(images)[0].softmax(0)
    if chances.ndim == 3:
        chances = torch.bincount(chances.argmax(0).flatten(), minlength=len(chances)) / chances[0].numel()
    best = chances.argsort(descending=True)[:top].tolist()
    said = [f"{names[i]} ({100 * chances[i]:.0f} %)" for i in best if chances[i] >= 0.005 or i == best[0]]
    return f"The model says {', '.join(said)}."


def save(section: Section, folder: Path, taken: set[str]) -> list[Path]:
    """Write the images of a section as PNG files, named after it; names in `taken` are left alone."""
    make_folder(folder)
    written = []
    for title, image in section.figures.items():
        stem = f"{Path(section.title).stem}-{title}".lower().replace(" ", "-")
        name, count = stem, 2
        while name in taken:
            name, count = f"{stem}-{count}", count + 1
        taken.add(name)
        buffer = BytesIO()
        (image.image() if isinstance(image, FigureGrid) else image).save(buffer, "PNG")
        write_file(folder / f"{name}.png", buffer.getvalue())
        written.append(folder / f"{name}.png")
    return written


def save_page(sections: Sequence[Section], folder: Path, model: Model, command: str = "") -> Path:
    """Write `index.html` with all images inside."""
    text = "Bright places matter most. Each map is scaled by itself: compare places, and contrasts by their numbers."
    target = folder / "index.html"
    write_file(target, page(f"Inside {name_of(model)}", text, sections, command).encode())
    return target


def _count(drawn: Sequence[Tensor]) -> str:
    return "one image" if len(drawn) == 1 else f"{len(drawn)} images"
