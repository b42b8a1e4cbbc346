"""`vitrail explain`: heatmaps and figures of a model, or the words that decided."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from vitrail.errors import DataError, VitrailError

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitrail.explain.options import ExplainOptions
    from vitrail.tasks.image_sources import SourceImage

EXAMPLES = """
    vitrail explain runs/classify/digits image.png
    vitrail explain vit_tiny_patch16_224 --weights vit_tiny.pt photos/*.jpg --out looks
    vitrail explain MODEL photo.jpg --block 3 --head 1  # one head of one block
    vitrail explain SWIN photo.jpg --block 2.1          # block 1 of stage 2, where a model has stages
    vitrail explain MODEL photo.jpg --query 5,7         # what that cell attends to, block by block
    vitrail explain MODEL photo.jpg --pixel 112,80      # the same for the cell under a pixel
    vitrail explain DETECTOR photo.jpg                  # why the best boxes are there; --pixel chooses a box
    vitrail explain FILMS --text "A warm and funny film."  # the words that decided, every head of every layer
    vitrail explain SWINIR photo.png --pixel 40,60    # which pixels a pixel of the restored image depends on
"""


@dataclass(frozen=True)
class Explain:
    """Show where a model looks, and its learned positions and patch filters.

    Without flags every method that the model supports is drawn: attention rollout, heads, blocks and saliency if the
    model has attention, else saliency and the influence of cells on each other. The output is a folder of PNG files
    with an index.html that needs no network.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    images: Positional[tuple[str, ...]] = ()
    """Images, folders of images, or patterns; for models of texts, files with a text per line."""
    text: tuple[str, ...] = ()
    """Texts, for models of texts."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    out: Path = Path("runs/explain")
    """The output folder."""
    method: Literal["auto", "maps", "rollout", "influence", "saliency", "gradcam"] = "auto"
    """maps: attention of one block; rollout: attention through all blocks; influence: which cells move a cell in one
    block, for any mixer; saliency: which pixels move the logits, or with a query that cell of the last stage;
    gradcam: channels of a block, weighted by how they move the class."""
    block: str | None = None
    """Block for maps, influence and gradcam, counted from 0: 5, or STAGE.BLOCK (2.1) if the model has stages; by
    default -1, the last."""
    head: int | None = None
    """Head of that block for maps, counted from 0; by default their mean."""
    query: str | None = None
    """ROW,COLUMN of the query cell, counted from 0, on the grid of that block, or of the last."""
    pixel: str | None = None
    """ROW,COLUMN of a pixel of the preprocessed image; the cell that covers it is the query. Of an image restorer, a
    pixel of the restored image; of a detector, a pixel of the image within a box."""
    labels: Path | None = None
    """Text file with one class name per line, if the model has none or to replace them."""
    limit: int = 32
    """Maximum number of images or texts to explain."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def run(self) -> int:
        """Draw, and print the path of the page."""
        from vitrail.atomic_io import check_writable_folder
        from vitrail.data.bands import band_mode
        from vitrail.explain.detector_report import detector_album
        from vitrail.explain.report import album, save, save_page
        from vitrail.explain.restorer_report import restorer_album
        from vitrail.explain.token_query import Pixel
        from vitrail.inference.model_loading import find_model
        from vitrail.parts.detection.detector import Detector
        from vitrail.parts.encoder_decoder import EncoderDecoder
        from vitrail.parts.exported_file import check_layers
        from vitrail.parts.restorer import Restorer
        from vitrail.parts.sequence_model import SequenceModel
        from vitrail.tasks.classes.class_names import class_names
        from vitrail.tasks.image_sources import find_images

        if self.limit < 1:
            raise VitrailError(f"--limit is {self.limit}; it must be at least 1.")

        look = self.look()
        check_writable_folder(self.out)
        model = find_model(self.model, self.weights, self.device)
        check_layers(model, "its layers are needed to look inside")
        if isinstance(model, SequenceModel | EncoderDecoder):
            return self._explain_texts(model)
        if self.text or not self.images:
            raise VitrailError(f"{self.model} is a model of images; give images in place of texts.")
        restores = isinstance(model, Restorer)
        if not restores and not hasattr(model, "preprocess"):
            raise VitrailError(
                f"{self.model} is of the task {model.task}, which is not explained: give a model of images or texts."
            )
        channels = model.config.in_channels if restores else model.preprocess.channels
        found = find_images(self.images, band_mode(channels))
        if len(found) > self.limit:
            print(f"note: drawing the first {self.limit} of {len(found)} images; --limit {len(found)} draws all")
        failed: list[str] = []
        sections, taken, images = [], set[str](), _readable(found[: self.limit], failed)
        if restores:
            found = restorer_album(model, images, self._output_pixel("An image restorer has the reach"))
        elif isinstance(model, Detector):
            names = class_names(model, model.config.num_classes, self.labels)
            pixel = self._output_pixel("A detector has the pixels that move the score")
            found = detector_album(model, images, names, Pixel(*pixel) if pixel else None)
        else:
            found = album(model, images, class_names(model, model.config.num_classes, self.labels), look)
        for section in found:
            sections.append(section)
            print(f"{section.title}: {section.text}")
            for path in save(section, self.out, taken):
                print(f"  {path}")
        print(f"Open {save_page(sections, self.out, model, _command())}")
        return DataError.exit_code if failed else 0

    def _explain_texts(self, model: Any) -> int:
        """Print the reasons of each text, and write the page.

        Raises:
            VitrailError: a flag is given that has no meaning for texts.
        """
        from vitrail.atomic_io import make_folder, write_file
        from vitrail.cli.table import print_table
        from vitrail.explain import text_report
        from vitrail.tasks.text_sources import find_lines, named_sources

        if self.method != "auto" or self.block or self.head is not None or self.query or self.pixel or self.labels:
            raise VitrailError(
                "Of a text, every method, layer and head is on the page: --text, --limit and --out alone."
            )
        lines = find_lines(named_sources(self.images, self.text))
        if len(lines) > self.limit:
            print(f"note: explaining the first {self.limit} of {len(lines)} texts; --limit {len(lines)} explains all")
        found: list[Any] = []
        translates = model.task == "translate"
        explain = text_report.explain_translations if translates else text_report.explain_texts
        for each in explain(model, lines[: self.limit], found):
            print("\n".join(each.lines))
            if each.table is not None:
                print_table(each.table.columns, each.table.rows, each.table.right)
        page = text_report.translation_page(model, found) if translates else None
        make_folder(self.out)
        write_file(self.out / "index.html", (page or text_report.text_page(model, found, _command())).encode())
        print(f"Open {self.out / 'index.html'}")
        return 0

    def _output_pixel(self, able: str) -> tuple[int, int] | None:
        """Return the pixel of the whole image to explain.

        Raises:
            VitrailError: a flag is given that has no meaning for the model.
        """
        if self.method != "auto" or self.block or self.head is not None or self.query:
            raise VitrailError(f"{able} of what is at a pixel: --pixel alone.")
        return _pair("pixel", self.pixel) if self.pixel else None

    def look(self) -> "ExplainOptions":
        """Return the options from the flags."""
        from vitrail.explain.options import ExplainOptions, check_options
        from vitrail.explain.token_query import Pixel

        if self.query and self.pixel:
            raise VitrailError("--query names a cell and --pixel the cell under a pixel; give one of them.")
        query = _pair("query", self.query) if self.query else None
        if self.pixel:
            query = Pixel(*_pair("pixel", self.pixel))
        look = ExplainOptions(self.method, _block(self.block), self.head, query)
        check_options(look)
        return look


def _block(text: str | None) -> int | str | None:
    """Parse a plain number as an index through the whole model, anything else as the name or address of a block."""
    return int(text) if text and text.removeprefix("-").isdecimal() else text


def _pair(flag: str, text: str) -> tuple[int, int]:
    row, comma, column = text.partition(",")
    if not (comma and row.strip().isdecimal() and column.strip().isdecimal()):
        raise VitrailError(f"--{flag} is ROW,COLUMN, two whole numbers counted from 0, such as 5,7; got '{text}'.")
    return int(row), int(column)


def _readable(images: "Sequence[SourceImage]", failed: list[str]) -> "Iterator[tuple[str, Image]]":
    """Read the images one by one; add the message of one that cannot be read to `failed`."""
    for image in images:
        try:
            yield image.name, image.read()
        except DataError as error:
            failed.append(image.name)
            print(f"error: {error}", file=sys.stderr)
    if len(failed) == len(images):
        raise DataError("None of the images could be read.")


def _command() -> str:
    from shlex import join

    return join(["vitrail", *sys.argv[1:]])
