"""Prediction of a folder, JPEG decoding included, over what the model alone reaches on pictures that are there.

    python benchmarks/folder.py                           # ViT-B/16 on 256 drawn JPEGs of 500 x 375
    python benchmarks/folder.py --pictures photos/ --model swin_tiny_patch4_window7_224

End to end is the engine of `vitrail predict`: find the files, read and prepare them in threads, ask the model, name the
classes. The model alone is asked about one prepared batch of the same size over and over. Both take turns.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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


def models(options: Namespace) -> dict[str, Any]:
    """Return the model as it was created, and optimized where that can be had."""
    model = Subject(options.model, imgsz=options.imgsz).build()
    found = {"as created, fp32": model}
    optimize = getattr(vitrail, "optimize", None)
    if optimize is None:
        tell(f"vitrail {vitrail.__version__} has no vitrail.optimize")
        return found
    try:
        other = Subject(options.model, imgsz=options.imgsz).build()
        found[f"optimized, {options.precision}"] = optimize(other, precision=options.precision)
    except VitrailError as error:
        tell(str(error))
    return found


def measure(pictures: str, options: Namespace) -> Table:
    """Time both for each model."""
    count, rows = len(find_pictures(pictures)), []
    for way, model in models(options).items():
        tell(f"measuring {options.model}, {way}")
        size = model.preprocess.size
        images = blotches(options.batch, len(model.preprocess.mean), size)
        calls: dict[str, Callable[[], object]] = {
            "folder": partial(_whole_folder, model, pictures, options.batch),
            "alone": partial(_ask, model, images),
        }
        turns = take_turns(calls, options)
        whole = Spread.of(count / seconds for seconds in turns["folder"].rounds)
        alone = Spread.of(options.batch / seconds for seconds in turns["alone"].rounds)
        pairs = zip(turns["folder"].rounds, turns["alone"].rounds, strict=True)
        share = Spread.of(count / folder / (options.batch / batch) for folder, batch in pairs)
        rows.append([way, amount(whole), amount(alone), ratio(share)])
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


def _whole_folder(model: Any, pictures: str, batch: int) -> None:
    results = list(predictions(model, find_pictures(pictures), batch=batch))
    wrong = [result for result in results if result.error is not None]
    if wrong:
        raise VitrailError(f"{len(wrong)} pictures cannot be read, first {wrong[0].path}: {wrong[0].error}")


def _ask(model: Any, images: torch.Tensor) -> None:
    with asking(model):
        model(images)


if __name__ == "__main__":
    sys.exit(main())
