"""Accuracy of a classifier after channels, heads, blocks and ranks are removed, without any training.

    python benchmarks/compress.py runs/classify/digits digits
    python benchmarks/compress.py vit_tiny_patch16_224 data/photos --weights vit_tiny.pt --axes heads mlp

Each axis is a curve: the share that is left, the share of answers that are right with its 95 % interval (Wilson), and
weights and multiply-adds beside those of the model. Scores by gradient and at random (three seeds) tell what a score
is worth; `no refit` what least squares add. DATA is a data set with a test split, or a folder of photographs without
labels: then an answer is right if it is the uncompressed model's, on views of each photograph. Views of one photograph
are not independent, so the interval counts photographs.

Scores see the training split (or the first half of the photographs), figures the test split (or the other half).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sheet import begin, flags, show, tell
from vitrail.compress.calibration_data import CalibrationBatch, training_probes
from vitrail.compress.compress import compress
from vitrail.compress.measure import figures
from vitrail.compress.settings import CompressSettings
from vitrail.data.image_io import open_image
from vitrail.data.transform import EvalTransform
from vitrail.edits.blocks import droppable_stages
from vitrail.edits.heads import prunable_heads
from vitrail.errors import VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.tasks import find_task
from vitrail.tasks.confidence_interval import wilson
from vitrail.tasks.table import Table

SUFFIXES = {".jpg", ".jpeg", ".png"}
VIEWS = 8


class Figures(NamedTuple):
    """Images with their classes, and how many of them are independent."""

    images: Tensor
    classes: Tensor
    independent: int


def share_right(model: Any, data: Figures) -> tuple[float, str]:
    """Return the accuracy and its interval as text."""
    with torch.inference_mode():
        answers = torch.cat([model(part).argmax(1) for part in data.images.split(64)])
    share = float((answers == data.classes).float().mean())
    bounds = wilson(round(share * data.independent), data.independent)
    return share, f"{bounds.low:.3f} to {bounds.high:.3f}"


def labelled(model: Any, name: str, samples: int) -> tuple[list[CalibrationBatch], Figures]:
    """Open a data set: probes of its training split, images of its test split."""
    test = find_task("classify").open_split(name, "test")
    prepare = EvalTransform(model.preprocess)
    images = torch.stack([prepare.to_pixels(test.image(i, prepare.mode)) for i in range(len(test))])
    return training_probes(model, name, samples), Figures(
        prepare.batch(images), torch.as_tensor(test.labels), len(test)
    )


def photographs(model: Any, folder: Path) -> tuple[list[CalibrationBatch], Figures]:
    """Open photographs without labels: half of them for scores, the others, in views, for figures."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    prepare = EvalTransform(model.preprocess)
    views = [_views(prepare.batch(prepare.to_pixels(open_image(path, prepare.mode))[None])) for path in files]
    first, second = torch.cat(views[: len(views) // 2]), torch.cat(views[len(views) // 2 :])
    with torch.inference_mode():
        classes = torch.cat([model(part).argmax(1) for part in second.split(64)])
    probes = [CalibrationBatch(lambda model, part=part: model(part)) for part in first.split(16)]
    return probes, Figures(second, classes.clone(), len(views) - len(views) // 2)


def _views(image: Tensor) -> Tensor:
    """Return an image, its mirror image, and shifts of both."""
    shifted = [image.roll(shift, dims=(2, 3)) for shift in ((0, 0), (8, 0), (0, 8), (-8, -8))]
    return torch.cat([part for one in shifted for part in (one, one.flip(3))])[:VIEWS]


def settings_of(axis: str, model: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the points of a curve: the share kept, and the settings."""
    if axis == "depth":
        blocks = droppable_stages(model)
        total = sum(blocks.values())
        return [
            (f"{left} of {total}", {"depth": left}) for left in range(total - 1, max(total // 2, len(blocks)) - 1, -1)
        ]
    if axis == "rank":
        return [(f"energy {share:g}", {"rank_energy": share}) for share in (0.99, 0.95, 0.9, 0.8)]
    if axis == "width":
        return [(f"{share:.0%}", {"width": share}) for share in (11 / 12, 5 / 6, 3 / 4, 2 / 3, 1 / 2)]
    return [(f"{1 - share:.0%}", {axis: share}) for share in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)]


WAYS = {
    "width": {
        "gradient": {},
        "activation": {"score": "activation"},
        "magnitude": {"score": "magnitude"},
        "no refit": {"refit": False},
        "random": {"score": "random"},
    },
    "heads": {
        "gradient": {},
        "gradient-l2": {"score": "gradient-l2"},
        "l0": {"score": "l0"},
        "no refit": {"refit": False},
        "magnitude": {"score": "magnitude"},
        "random": {"score": "random"},
    },
    "mlp": {
        "gradient": {},
        "activation": {"score": "activation"},
        "no refit": {"refit": False},
        "random": {"score": "random"},
    },
    "depth": {"greedy": {}, "even": {"blocks": "even"}},
    "rank": {"on data": {}, "weights alone": {"refit": False}},
}
"""Ways to choose on each axis."""


def curve(
    axis: str, model: Any, probes: Sequence[CalibrationBatch], right: Callable[[Any], tuple[float, str]]
) -> Table:
    """Return the table of one axis."""
    whole, rows = figures(model), []
    for left, settings in settings_of(axis, model):
        for way, more in WAYS[axis].items():
            tell(f"{axis} {left}, {way}")
            seeds = range(3) if way == "random" else range(1)
            try:
                made = [
                    compress(model, CompressSettings(**settings, **more, seed=seed), probes, tell) for seed in seeds
                ]
            except VitrailError as error:
                rows.append((left, way, str(error).partition("\n")[0], "", "", ""))
                continue
            found, sizes = [right(small) for small in made], figures(made[0])
            macs = "" if not whole.multiply_adds else f"{(sizes.multiply_adds or 0) / whole.multiply_adds:.2f}"
            if axis == "heads":
                tell(f"  heads of each layer: {list(prunable_heads(made[0]).values())}")
            share = sum(value for value, _ in found) / len(found)
            interval = found[0][1] if len(found) == 1 else f"{min(found)[0]:.3f} to {max(found)[0]:.3f} (seeds)"
            rows.append((left, way, f"{share:.3f}", interval, f"{sizes.parameters / whole.parameters:.2f}", macs))
    return Table(axis, (f"{axis} left", "choice", "right", "95 % interval", "weights", "multiply-adds"), rows)


def main(words: Sequence[str] | None = None) -> int:
    """Compress along each axis, and print the curves."""
    parser = flags(__doc__)
    parser.add_argument("model", help="a model or run folder, or a name in the catalogue with --weights")
    parser.add_argument("data", help="a data set with a test split, or a folder of photographs")
    parser.add_argument("--weights", help="a checkpoint")
    parser.add_argument("--axes", nargs="+", choices=WAYS, default=list(WAYS), help="which curves")
    parser.add_argument("--samples", type=int, default=128, help="training samples for the scores (default: 128)")
    options = begin(parser, words)
    model = find_model(options.model, options.weights, "cpu").eval()
    loose = Path(options.data).is_dir() and any(
        path.suffix.lower() in SUFFIXES for path in Path(options.data).iterdir()
    )
    probes, data = photographs(model, Path(options.data)) if loose else labelled(model, options.data, options.samples)
    share, interval = share_right(model, data)
    tables = [curve(axis, model, probes, lambda small: share_right(small, data)) for axis in options.axes]
    title = f"{model.variant} without training; whole it is right on {share:.3f} ({interval})"
    show("compress", title, tables, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
