"""Prediction of a folder, JPEG decoding included, over what the model alone reaches on pictures that are there.

    python benchmarks/folder.py                           # ViT-B/16 on 256 drawn JPEGs of 500 x 375
    python benchmarks/folder.py --pictures photos/ --model swin_tiny_patch4_window7_224

End to end is the engine of `vitrail predict`: find the files, read and prepare them in threads, ask the model, name the
classes. The model alone is asked about one prepared batch of the same size over and over. Both take turns. In the last
row the job is given the plain model and finds its fast form itself, as `vitrail predict` does: checking and building
are in its time, and it is set against the fast form alone.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import vitrail
from sheet import begin, flags, precision_flag, show, take_turns, tell
from vitrail.errors import VitrailError
from vitrail.lab.bench.inputs import blotches
from vitrail.lab.bench.page import amount, ratio
from vitrail.lab.bench.spread import Spread
from vitrail.lab.bench.subject import Subject
from vitrail.lab.bench.table import Table
from vitrail.lab.inference import asking
from vitrail.lab.pictures import find_pictures
from vitrail.lab.predict import predictions


def draw(folder: Path, count: int, size: tuple[int, int], quality: int = 90) -> None:
    """Draw JPEGs: blotches with some noise, about as hard to decode as photographs.

    Args:
        folder: where to.
        count: how many.
        size: width and height.
        quality: as Pillow counts it.
    """
    for i in range(count):
        pixels = blotches(1, 3, max(size), seed=i)[0, :, : size[1], : size[0]] * 40 + 128
        values = pixels.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()  # (C, Y, X) -> (Y, X, C)
        Image.fromarray(values.numpy()).save(folder / f"{i:05}.jpg", quality=quality)


class Way(NamedTuple):
    """A way to predict a folder: who answers in it, who alone, and whether the job looks for the fast form itself."""

    model: Any
    alone: Any
    optimize: bool


def ways(options: Namespace) -> dict[str, Way]:
    """Return the model as it was created, optimized, and as `vitrail predict` does by default: it finds out."""
    model = Subject(options.model, imgsz=options.imgsz).build()
    fast = vitrail.optimize(model, precision=options.precision)
    return {
        "as created, fp32": Way(model, model, False),
        f"optimized, {options.precision}": Way(fast, fast, False),
        f"found out on the spot, {options.precision}": Way(model, fast, True),
    }


def measure(pictures: str, options: Namespace) -> Table:
    """Time both for each way."""
    count, rows = len(find_pictures(pictures)), []
    for name, way in ways(options).items():
        tell(f"measuring {options.model}, {name}")
        images = blotches(options.batch, len(way.model.preprocess.mean), way.model.preprocess.size)
        calls: dict[str, Callable[[], object]] = {
            "folder": partial(_whole_folder, way, pictures, options),
            "alone": partial(_ask, way.alone, images),
        }
        turns = take_turns(calls, options)
        whole = Spread.of(count / seconds for seconds in turns["folder"].rounds)
        alone = Spread.of(options.batch / seconds for seconds in turns["alone"].rounds)
        pairs = zip(turns["folder"].rounds, turns["alone"].rounds, strict=True)
        share = Spread.of(count / folder / (options.batch / batch) for folder, batch in pairs)
        rows.append([name, amount(whole), amount(alone), ratio(share)])
    columns = ["model", "folder img/s", "alone img/s", "share"]
    title = f"{options.model}, {count} pictures, batches of {options.batch}"
    return Table(title, columns, rows, right=columns[1:])


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.add_argument("--model", default="vit_base_patch16_224", help="a name in the catalogue, or a model folder")
    parser.add_argument("--imgsz", type=int, help="side of the pictures that the model sees (default: its own)")
    parser.add_argument("--pictures", help="a folder of pictures (default: drawn JPEGs)")
    parser.add_argument("--count", type=int, default=256, help="JPEGs to draw (default: 256)")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="their width and height")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a batch (default: 32)")
    options = begin(parser, words)
    with tempfile.TemporaryDirectory() as folder:
        if options.pictures is None:
            tell(f"drawing {options.count} JPEGs")
            draw(Path(folder), options.count, tuple(options.size))
        table = measure(options.pictures or folder, options)
    show("folder", "Prediction of a folder", [table], options)
    return 0


def _whole_folder(way: Way, pictures: str, options: Namespace) -> None:
    precision = options.precision if way.optimize else "auto"
    found = find_pictures(pictures)
    results = list(predictions(way.model, found, batch=options.batch, precision=precision, optimize=way.optimize))
    wrong = [result for result in results if result.error is not None]
    if wrong:
        raise VitrailError(f"{len(wrong)} pictures cannot be read, first {wrong[0].path}: {wrong[0].error}")


def _ask(model: Any, images: torch.Tensor) -> None:
    with asking(model):
        model(images)


if __name__ == "__main__":
    sys.exit(main())
