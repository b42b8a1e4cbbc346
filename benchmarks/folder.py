"""Prediction of a folder, JPEG decoding included, over the throughput of the model alone on decoded images.

    python benchmarks/folder.py                           # ViT-B/16 on 256 drawn JPEGs of 500 x 375, about two minutes
    python benchmarks/folder.py --images photos/ --model swin_tiny_patch4_window7_224
    python benchmarks/folder.py --ways plain --rounds 2   # the model as it was created, in fp32

End to end is the engine of `vitrail predict`: find the files, read and prepare them, ask the model, name the classes.
The model alone is asked about one prepared batch of the same size over and over. Both take turns. There are three ways:

- `fast`: the job is given the fast form, and is set against the fast form alone;
- `spot`: the job is given the plain model and finds its fast form itself, as `vitrail predict` does: checking and
  building are in its time, and it is set against the fast form alone;
- `plain`: the job is given the plain model, and is set against the plain model alone.
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
from vitrail.bench.inputs import blotches
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.errors import VitrailError
from vitrail.inference.predict import predictions
from vitrail.tasks.classify.options import PredictOptions
from vitrail.tasks.classify.predictor import ClassPredictor
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.table import Table


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
    """A way to predict a folder: the model in the job, the model timed alone, and whether the job may optimize."""

    about: str
    model: Any
    alone: str
    optimize: bool


WAYS = ("fast", "spot", "plain")


def ways(options: Namespace) -> tuple[dict[str, Way], dict[str, Any]]:
    """Return the ways that are asked for, and the forms of the model that they are set against."""
    model = ModelSpec(options.model, imgsz=options.imgsz).build()
    fast = vitrail.optimize(model, precision=options.precision)
    known = {
        "fast": Way(f"optimized, {options.precision}", fast, "fast", False),
        "spot": Way(f"found out on the spot, {options.precision}", model, "fast", True),
        "plain": Way("as created, fp32", model, "plain", False),
    }
    chosen = {name: known[name] for name in options.ways}
    forms = {"fast": fast, "plain": model}
    return chosen, {name: forms[name] for name in dict.fromkeys(way.alone for way in chosen.values())}


def measure(source: str, options: Namespace) -> Table:
    """Time all ways, and the forms alone, in the same rounds."""
    count = len(find_images(source))
    chosen, forms = ways(options)
    tell(f"measuring {options.model}: {', '.join(way.about for way in chosen.values())}")
    calls: dict[str, Callable[[], object]] = {}
    for name, form in forms.items():
        images = blotches(options.batch, len(form.preprocess.mean), form.preprocess.size)
        calls[f"{name} alone"] = partial(_ask, form, images)
    for name, way in chosen.items():
        calls[f"{name} folder"] = partial(_whole_folder, way, source, options)
    turns = take_turns(calls, options)
    rows = [
        _row(way, turns[f"{name} folder"], turns[f"{way.alone} alone"], count, options.batch)
        for name, way in chosen.items()
    ]
    columns = ["model", "folder img/s", "alone img/s", "share"]
    title = f"{options.model}, {count} images, batches of {options.batch}"
    return Table(title, columns, rows, right=columns[1:])


def _row(way: Way, folder: Timings, alone: Timings, count: int, batch: int) -> list[str]:
    whole = Quantiles.of(count / seconds for seconds in folder.rounds)
    synthetic = Quantiles.of(batch / seconds for seconds in alone.rounds)
    pairs = zip(folder.rounds, alone.rounds, strict=True)
    share = Quantiles.of(count / all_of_them / (batch / one) for all_of_them, one in pairs)
    return [way.about, amount(whole), amount(synthetic), ratio(share)]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.set_defaults(rounds=4)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:2], help="see above (default: fast spot)")
    parser.add_argument("--model", default="vit_base_patch16_224", help="a name in the catalogue, or a model folder")
    parser.add_argument("--imgsz", type=int, help="side of the images that the model sees (default: its own)")
    parser.add_argument("--images", help="a folder of images (default: drawn JPEGs)")
    parser.add_argument("--count", type=int, default=256, help="JPEGs to draw (default: 256)")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="their width and height")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch (default: 32)")
    options = begin(parser, words)
    with tempfile.TemporaryDirectory() as folder:
        if options.images is None:
            tell(f"drawing {options.count} JPEGs")
            draw(Path(folder), options.count, tuple(options.size))
        table = measure(options.images or folder, options)
    show("folder", "Prediction of a folder", [table], options)
    return 0


def _whole_folder(way: Way, images: str, options: Namespace) -> None:
    precision = options.precision if way.optimize else "auto"
    found = find_images(images)
    chosen: Any = PredictOptions(batch=options.batch, precision=precision, optimize=way.optimize)
    results = list(predictions(ClassPredictor(way.model, chosen, len(found)), found, options.batch))
    wrong = [result for result in results if result.error is not None]
    if wrong:
        raise VitrailError(f"{len(wrong)} images cannot be read, first {wrong[0].path}: {wrong[0].error}")


def _ask(model: Any, images: torch.Tensor) -> None:
    with inference_mode_for(model):
        model(images)


if __name__ == "__main__":
    sys.exit(main())
