"""Effect of decoding large JPEGs at a smaller scale on predictions and time: `vitrail predict` with and without.

    python benchmarks/draft.py --weights FILE --source photos/
    python benchmarks/draft.py --weights FILE --source photos/ --imgsz 32 48 --left 1 2 3

libjpeg decodes an image at 1/2, 1/4 or 1/8; `--left` says how many times the pixels that the resize asks for must be
left along the shorter side. Where the images at hand are smaller than a camera's, `--imgsz` asks for the same
factors: they are resized and cropped to that side, as for a model of that size, and then enlarged for the model, the
same way whichever way they were decoded. Images are cropped to sides that 16 divides and written anew, so that any
scale keeps their shape.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import vitrail
from sheet import begin, flags, show, tell
from vitrail.data.image_io import open_image
from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.native.image_resize import best_pixels
from vitrail.tasks.classify.predictor import REDUCED
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.table import Table

PART = 64


class Prepared(NamedTuple):
    """Images ready for a model.

    Args:
        pixels: `(n, C, Y, X)` of uint8.
        sides: the shorter side of each as it was decoded.
        seconds: time to read one.
    """

    pixels: Tensor
    sides: Tensor
    seconds: float


def write_cropped(source: str, folder: Path, quality: int = 95) -> list[Path]:
    """Write the upper left part of each image, whose sides 16 divides, as a JPEG."""
    written = []
    for i, found in enumerate(find_images(source)):
        image = found.read()
        written.append(folder / f"{i:06}.jpg")
        image.crop((0, 0, image.width // 16 * 16, image.height // 16 * 16)).save(written[-1], quality=quality)
    return written


def prepare(paths: Sequence[Path], transform: EvalTransform, least: int | None) -> Prepared:
    """Read images, decoded as small as `least` allows for their shorter side."""
    pixels, sides, started = [], [], perf_counter()
    for path in paths:
        image = open_image(path, transform.mode, draft=least, aligned=True)
        sides.append(min(image.size))
        pixels.append(transform.to_pixels(image))
    return Prepared(torch.stack(pixels), torch.tensor(sides), (perf_counter() - started) / len(paths))


def ask(model: Any, transform: EvalTransform, pixels: Tensor) -> Tensor:
    """Return the logits of many images, enlarged to the model's size."""
    size = (model.preprocess.size,) * 2
    with inference_mode_for(model):
        batches = (interpolate(transform.batch(part), size, mode="bicubic") for part in pixels.split(PART))
        return torch.cat([model(images) for images in batches])


def compare(model: Any, fast: Any, imgsz: int, paths: Sequence[Path], options: Namespace) -> list[list[str]]:
    """Ask a model about images decoded whole, in fp32 and bf16, and decoded smaller."""
    tell(f"measuring at {imgsz}")
    transform = EvalTransform(replace(model.preprocess, size=imgsz), best_pixels())
    whole = prepare(paths, transform, None)
    answers = ask(model, transform, whole.pixels)
    rows = [_row([str(imgsz), "whole, bf16", str(len(paths)), ""], ask(fast, transform, whole.pixels), answers, "")]
    for left in options.left:
        smaller = prepare(paths, transform, round(left * transform.preprocess.resize))
        chosen = smaller.sides < whole.sides
        if not chosen.any():
            tell(f"  no image is large enough for {left:g}")
            continue
        logits = ask(model, transform, smaller.pixels[chosen])
        kept = smaller.sides[chosen] / transform.preprocess.resize
        name = f"{left:g} times or more" + (", as `predict --draft`" if left == REDUCED else "")
        about = [str(imgsz), name, str(int(chosen.sum())), f"{kept.min():.2f} to {kept.max():.2f}"]
        rows.append(_row(about, logits, answers[chosen], f"{whole.seconds / smaller.seconds:.2f}"))
    return rows


def _row(about: list[str], logits: Tensor, wanted: Tensor, gain: str) -> list[str]:
    """Return how many answers stayed, and how far the logits of an image moved, as a share of their range."""
    moved = (logits - wanted).abs().amax(1) / (wanted.amax(1) - wanted.amin(1))
    changed = logits.argmax(1) != wanted.argmax(1)
    two = wanted.topk(2).values
    lead = (two[:, 0] - two[:, 1])[changed]
    worst = f"{lead.max():.2f}" if len(lead) else "none"
    same = 1 - changed.float().mean().item()
    return [*about, f"{same:.1%}", worst, f"{moved.median():.2%}", f"{moved.quantile(0.95):.2%}", gain]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a name in the catalogue, or a model folder")
    parser.add_argument("--weights", help="trained weights of a name in the catalogue")
    parser.add_argument("--source", required=True, help="images to ask it about")
    parser.add_argument("--imgsz", type=int, nargs="+", help="sides to prepare images at (default: the model's)")
    parser.add_argument(
        "--left", type=float, nargs="+", default=(1, 1.5, 2, REDUCED), help=f"see above (default: 1 1.5 2 {REDUCED})"
    )
    options = begin(parser, words)
    model: Any = find_model(options.model, options.weights).eval()
    fast: Any = vitrail.optimize(model, precision="bf16")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_cropped(options.source, Path(folder))
        sides = options.imgsz or [model.preprocess.size]
        rows = [row for imgsz in sides for row in compare(model, fast, imgsz, paths, options)]
    if all(row[1].startswith("whole") for row in rows):
        raise VitrailError("No image is large enough to be decoded smaller. Use larger ones, or a smaller --imgsz.")
    columns = ["imgsz", "decoded", "images", "times the pixels", "same answer", "lead of the others"]
    columns += ["logits off, median", "95 % below", "reading, times as fast"]
    show("draft", "Decoding smaller", [Table(options.source, columns, rows, right=columns[2:])], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
