"""Error and time of Linformer in the place of attention, over rank and image size; time of the Star-Transformer.

    python benchmarks/linear_mixers.py --weights vit_tiny.pt --images data/photos
    python benchmarks/linear_mixers.py --weights vit_tiny.pt --images data/photos --sizes 224 384 --ranks 17 50 101

The released ViT-Ti, its positions interpolated to each size, untrained for what takes the place of its attention. Error
is the mean over blocks of |y - y'| / |y|, y the outputs of the attention and y' those of the mixer on the same inputs;
same is the share of images whose class stays. Times are of a batch, in turns, by PyTorch and `vitrail.optimize`.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vitrail
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.inputs import views
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import unchanged
from vitrail.compress.swap import swap_attention
from vitrail.edits.swap_attention import swappable_mixers
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.table import Table


def block_errors(model: Any, swapped: Any, images: Tensor) -> float:
    """Return the mean relative error of the mixers of a model on the inputs of its attention."""
    errors: list[float] = []

    def compare(name: str, given: tuple[Any, ...], y: Tensor) -> None:
        other = swapped.get_submodule(name)(*given)
        errors.append(float((other - y).norm() / y.norm()))

    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, given, y, name=name: compare(name, given, y))
        for name in swappable_mixers(model)
    ]
    with torch.inference_mode():
        model(images)
    for handle in handles:
        handle.remove()
    return sum(errors) / len(errors)


def table_of(size: int, options: Any) -> Table:
    """Return the table of one image size."""
    model = vitrail.create_model(options.model, weights=options.weights, image_size=size).eval()
    images = views(options.images, model.preprocess, len(find_images(options.images, "RGB")))
    models: dict[str, Any] = {"attention": model}
    for rank in options.ranks:
        models[f"Linformer {rank}"] = deepcopy(model)
        swap_attention(models[f"Linformer {rank}"], "linformer", rank)
    models["star 2"] = deepcopy(model)
    swap_attention(models["star 2"], "star", 2)
    with torch.inference_mode():
        classes = {name: torch.cat([one(part) for part in images.split(8)]).argmax(1) for name, one in models.items()}
    errors = {name: block_errors(model, one, images[:8]) for name, one in models.items() if one is not model}
    batch = images[: options.batch]
    fast = {name: vitrail.optimize(one, "fp32") for name, one in models.items()}
    tell(f"{size}: {len(images)} images")
    turns = take_turns(
        {name: partial(unchanged(one, batch), batch) for name, one in models.items()}
        | {f"{name}, optimized": partial(unchanged(one, batch), batch) for name, one in fast.items()},
        options,
    )
    rows = []
    for name in models:
        rates = []
        for suffix in ("", ", optimized"):
            own, base = turns[name + suffix], turns["attention" + suffix]
            rates += [amount(Quantiles.of(len(batch) / s for s in own.rounds)), ratio(own.times_as_fast(base))]
        same = float((classes[name] == classes["attention"]).float().mean())
        error = "" if name not in errors else f"{errors[name]:.3f}"
        rows.append([name, error, f"{same:.0%}", *rates])
    columns = ["mixer", "error of a block", "same", "images/s", "as attention", "optimized, images/s", "as attention"]
    return Table(f"{size} pixels, {model.features(images[:1]).grid.tokens} tokens", columns, rows, columns[1:])


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a ViT")
    parser.add_argument("--weights", help="its checkpoint")
    parser.add_argument("--images", required=True, help="folder or pattern of images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384, 512], help="sides of images")
    parser.add_argument("--ranks", type=int, nargs="+", default=[17, 50, 101, 197], help="ranks of Linformer")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    show("linear_mixers", "Linear attention over images", [table_of(size, options) for size in options.sizes], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
