"""Training images that a process prepares per second, from file to model input.

    python benchmarks/loading.py                          # 500 x 375 JPEGs at 224, and small images at 32
    python benchmarks/loading.py --workers 1              # in a process of their own, handed over as bytes
    python benchmarks/loading.py --images photos/ --augment photo-strong

Each row is a loader as `vitrail train` builds it: with compiled pixels, and in Pillow and PyTorch alone. Both must give
the very same batches, which is checked first. They take turns; a turn is an epoch.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from folder import draw
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.inputs import blotches
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.data.augment import AUGMENTS
from vitrail.data.dataset import Arrays, Files, ImageSet
from vitrail.data.loading import Loader, eval_loader, train_loader
from vitrail.data.pixel_ops import PLAIN, PixelOps
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.errors import VitrailError
from vitrail.machine.host_memory import disable_malloc_trim
from vitrail.native.image_resize import best_pixels
from vitrail.preprocess import Preprocess
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.table import Table

LARGE, SMALL = ("none", "photo", "photo-strong"), ("none", "small", "small-strong")


def photographs(paths: Sequence[Path]) -> ImageSet:
    """Return a set of files of one class."""
    return ImageSet("photographs", ("any",), [path.name for path in paths], np.zeros(len(paths)), Files(list(paths)))


def small_images(count: int, side: int = 32) -> ImageSet:
    """Return decoded images of one small size, as CIFAR's are after the first epoch."""
    pixels = (blotches(count, 3, side) * 40 + 128).clamp(0, 255).to(torch.uint8)
    return ImageSet("small images", ("any",), [str(i) for i in range(count)], np.zeros(count), Arrays(pixels.numpy()))


def loader(images: ImageSet, augment: str, size: int, batch: int, workers: int, pixels: PixelOps) -> Loader:
    """Return a loader of training batches, or of validation's where nothing is varied."""
    small = images.pixels is not None
    preprocess = Preprocess(size, crop=1.0 if small else 0.9)
    if augment == "none":
        return eval_loader(images, EvalTransform(preprocess, pixels), batch, workers=workers)
    return train_loader(images, TrainTransform(preprocess, AUGMENTS[augment], pixels), batch, workers=workers)


def epoch(each: Loader) -> int:
    """Go through all batches; return how many images there were."""
    return sum(len(batch.labels) for batch in each.epoch())


def check(ours: Loader, plain: Loader) -> None:
    """Compare the first batches of two loaders."""
    if not torch.equal(next(ours.epoch()).images, next(plain.epoch()).images):
        raise VitrailError("The batches of the two loaders differ.")


def measure(images: ImageSet, size: int, batch: int, augments: Sequence[str], options: Namespace) -> Table:
    """Time all choices of augmentation, compiled and plain."""
    rows = []
    for augment in augments:
        tell(f"measuring {len(images)} {images.name}, {augment}")
        ways = {"compiled": best_pixels(None), "plain": PLAIN}
        loaders = {name: loader(images, augment, size, batch, options.workers, way) for name, way in ways.items()}
        check(*loaders.values())
        count = epoch(loaders["plain"])
        turns = take_turns({name: partial(epoch, each) for name, each in loaders.items()}, options)
        rates = (Quantiles.of(count / seconds for seconds in turns[name].rounds) for name in loaders)
        gain = turns["compiled"].times_as_fast(turns["plain"])
        rows.append(["validation" if augment == "none" else augment, *map(amount, rates), ratio(gain)])
    columns = ["augmentation", "img/s", "plain img/s", "times as fast"]
    title = f"{len(images)} {images.name} at {size}, batches of {batch}, {options.workers} workers"
    return Table(title, columns, rows, right=columns[1:])


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.set_defaults(rounds=5, threads=1)
    parser.add_argument("--workers", type=int, default=0, help="loading processes (default: 0, in this one)")
    parser.add_argument("--images", help="a folder of images (default: drawn JPEGs)")
    parser.add_argument("--count", type=int, default=128, help="JPEGs to draw (default: 128)")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="their width and height")
    parser.add_argument("--imgsz", type=int, default=224, help="side that they are brought to (default: 224)")
    parser.add_argument("--small", type=int, default=4096, help="small images (default: 4096)")
    parser.add_argument("--augment", nargs="+", choices=AUGMENTS, help="only these")
    options = begin(parser, words)
    disable_malloc_trim()  # as a training does
    with tempfile.TemporaryDirectory() as folder:
        if options.images is None:
            tell(f"drawing {options.count} JPEGs")
            draw(Path(folder), options.count, tuple(options.size))
        paths = [Path(image.name) for image in find_images(options.images or folder)]
        large, small = ([a for a in known if a in (options.augment or known)] for known in (LARGE, SMALL))
        tables = [measure(photographs(paths), options.imgsz, min(64, len(paths)), large, options)]
        tables.append(measure(small_images(options.small), 32, min(128, options.small), small, options))
    show("loading", "Loading", [table for table in tables if table.rows], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
