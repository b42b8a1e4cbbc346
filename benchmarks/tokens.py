"""Throughput over accuracy of token merging (ToMe) and pruning (EViT) of a trained plain Transformer, untrained for it.

python benchmarks/tokens.py --weights FILE --images FOLDER            # ViT-Ti; FILE is the checkpoint of AugReg
python benchmarks/tokens.py --weights FILE --images FOLDER --merge 0 4 8 12 16 --keep 0.9 0.7 0.5 --batch 32

The label of each view is the prediction of the unchanged model for the whole image. All candidates are interleaved.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vitrail
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.inputs import views
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import unchanged
from vitrail.edits.edit import apply_edits
from vitrail.edits.merge_tokens import MergeTokens
from vitrail.edits.prune_tokens import PruneTokens
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.table import Table

PART = 32


def candidates(options: Any) -> dict[str, Any]:
    """Return the model as it is, and with fewer and fewer tokens."""
    spec = ModelSpec(options.model, weights=options.weights)
    models = {"as it is": spec.build()}
    for r in options.merge:
        model = spec.build()
        models[f"merge {r}"] = apply_edits(model, MergeTokens.constant(model, r))
    for share in options.keep:
        model = spec.build()
        models[f"keep {share:g}"] = apply_edits(model, PruneTokens.quarters(model, share))
    return models


def logits(model: Any, images: Tensor) -> Tensor:
    """Return the logits of all images."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(PART)])


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="which model")
    parser.add_argument("--weights", help="its checkpoint")
    parser.add_argument("--images", required=True, help="folder or pattern of images")
    parser.add_argument("--views", type=int, default=6, help="views of each image (default: 6)")
    parser.add_argument("--merge", type=int, nargs="*", default=[0, 4, 8, 12, 16], help="tokens merged in each block")
    parser.add_argument("--keep", type=float, nargs="*", default=[0.9, 0.7, 0.5], help="shares kept, three times")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch (default: 16)")
    parser.add_argument("--optimized", action="store_true", help="time vitrail.optimize(model), fp32, too")
    options = begin(parser, words)
    models = candidates(options)
    whole = len(find_images(options.images, "RGB"))
    images = views(options.images, models["as it is"].preprocess, whole * options.views)
    expected = logits(models["as it is"], images)
    truth = expected[:whole].argmax(1).repeat(options.views)
    tell(f"{len(images)} views of {whole} images")
    rights = {name: logits(model, images) for name, model in models.items()}
    batch = images[: options.batch]
    calls = {name: partial(unchanged(model, batch), batch) for name, model in models.items()}
    if options.optimized:
        fast = {f"{name}, optimized": vitrail.optimize(model, "fp32") for name, model in models.items()}
        calls |= {name: partial(unchanged(model, batch), batch) for name, model in fast.items()}
    turns = take_turns(calls, options)
    rows = [_row(name, turns[name], turns, rights[name.partition(",")[0]], expected, truth, batch) for name in calls]
    columns = ["tokens", "images/s", "over the same form as it is", "right", "class of as it is"]
    show("tokens", f"Fewer tokens: {options.model}", [Table("", columns, rows, columns[1:])], options)
    return 0


def _row(
    name: str, own: Timings, turns: dict[str, Timings], got: Tensor, expected: Tensor, truth: Tensor, batch: Tensor
) -> list[str]:
    base = turns["as it is, optimized" if name.endswith("optimized") else "as it is"]
    rate = Quantiles.of(len(batch) / seconds for seconds in own.rounds)
    right, same = ((got.argmax(1) == other).float().mean().item() for other in (truth, expected.argmax(1)))
    return [name, amount(rate), ratio(own.times_as_fast(base)), f"{right:.1%}", f"{same:.1%}"]


if __name__ == "__main__":
    sys.exit(main())
