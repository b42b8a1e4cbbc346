"""Weights of eight and four bits: size on disk, accuracy and time, on a trained model.

python benchmarks/quantize.py --weights FILE --images FOLDER                # ViT-Ti; FILE is the checkpoint of AugReg
python benchmarks/quantize.py --weights FILE --images FOLDER --batch 1

The label of a view is the prediction of the unchanged model for the whole image. `moments` weighs errors of weights by
the mean squares of their inputs on the first views. All candidates take turns.
"""

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

import vitrail
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.inputs import views
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import unchanged
from vitrail.compress.binary_codes import BinaryCodes
from vitrail.edits.quantize import quantizable_layers, quantize_weights
from vitrail.parts.quantized_linear import FORMATS, absmax
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.table import Table
from vitrail.weights.folder import TENSORS, save_model

PART = 32
QUERIES, NEAREST = 100, 10
"""Tokens that are searched for, and how many of the nearest count."""
COLD = 24
"""Layers that take turns in the product of one row, so that none stays in a cache."""


def mean_squares(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the mean squares of the inputs of each layer, by its name."""
    found: dict[str, Tensor] = {}
    layers = quantizable_layers(model)

    def keep(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[name] = args[0].flatten(0, -2).square().mean(0)

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(keep, name)) for name in layers]
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return {name: value.clone() for name, value in found.items()}


def candidates(options: Any, images: Tensor) -> dict[str, Any]:
    """Return the model as it is, and with packed weights."""
    spec = ModelSpec(options.model, weights=options.weights)
    models: dict[str, Any] = {"fp32": spec.build()}
    moments = mean_squares(models["fp32"], images)
    for name in FORMATS:
        for title, given in ((name, None), (f"{name}, moments", moments)):
            if name != "int8" or given is None:
                tell(f"packing {title}")
                model = spec.build()
                models[title] = quantize_weights(model, dict.fromkeys(quantizable_layers(model), name), given)
    return models


def logits(model: Any, images: Tensor) -> Tensor:
    """Return the logits of all images."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(PART)])


def size(model: Any) -> int:
    """Return the bytes of the tensors of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        return (save_model(model, Path(folder) / "model") / TENSORS).stat().st_size


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="which model")
    parser.add_argument("--weights", help="its checkpoint")
    parser.add_argument("--images", required=True, help="folder or pattern of images")
    parser.add_argument("--views", type=int, default=12, help="views of each image (default: 12)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    whole = len(find_images(options.images, "RGB"))
    images = views(
        options.images, ModelSpec(options.model, weights=options.weights).build().preprocess, whole * options.views
    )
    models = candidates(options, images[:whole])
    expected = logits(models["fp32"], images)
    truth = expected[:whole].argmax(1).repeat(options.views)
    batch = images[: options.batch]
    calls: dict[str, Any] = {name: partial(unchanged(model, batch), batch) for name, model in models.items()}
    fast: Any = vitrail.optimize(models["fp32"], "int8")
    forms = {"optimized, int8 products": fast, "optimized, fp32": vitrail.optimize(models["fp32"], "fp32")}
    calls |= {name: partial(unchanged(form, batch), batch) for name, form in forms.items()}
    turns = take_turns(calls, options)
    rows = []
    for name in calls:
        tell(f"asking {name}")
        form = models.get(name, forms.get(name))
        rows.append(_row(name, form, logits(form, images), (expected, truth), turns, len(batch)))
    columns = ["weights", "bytes on disk", "right", "class of fp32", "logits off by", "images/s", "over fp32"]
    tables = [
        Table(f"{options.model}, {len(images)} views of {whole} images", columns, rows, columns[1:]),
        few(options),
        codes(models["fp32"], images[:whole], options),
    ]
    show("quantize", "Weights of few bits", tables, options)
    return 0


def _row(
    name: str, form: Any, got: Tensor, wanted: tuple[Tensor, Tensor], turns: dict[str, Timings], batch: int
) -> list[str]:
    expected, truth = wanted
    rate = Quantiles.of(batch / seconds for seconds in turns[name].rounds)
    right, same = ((got.argmax(1) == other).float().mean().item() for other in (truth, expected.argmax(1)))
    off = ((got - expected).norm() / expected.norm()).item()
    stored = "–" if name.startswith("optimized") else f"{size(form):,}"
    gain = ratio(turns[name].times_as_fast(turns["fp32"]))
    return [name, stored, f"{right:.1%}", f"{same:.1%}", f"{off:.3f}", amount(rate), gain]


def few(options: Any) -> Table:
    """Time the product of one row with weights that no cache holds: memory is the limit."""
    wide, x = 3072, torch.randn(1, 768)
    weights = [torch.randn(wide, 768) for _ in range(COLD)]
    layers: dict[str, list[nn.Module]] = {name: [] for name in FORMATS}
    for name, kind in FORMATS.items():
        first = kind(768, wide)
        if name == "codebook":
            first.encode(weights[0][:64].repeat(wide // 64, 1), absmax)
        for weight in weights:
            layer = kind(768, wide)
            if name == "codebook":
                layer.load_state_dict(first.state_dict())
            else:
                layer.encode(weight, absmax)
            layers[name].append(layer)
    with torch.inference_mode():
        calls: dict[str, Any] = {"fp32": lambda: [linear(x, weight) for weight in weights]}
        calls |= {name: partial(lambda stack: [layer(x) for layer in stack], stack) for name, stack in layers.items()}
        turns = take_turns(calls, options)
    rows = [
        [name, amount(Quantiles.of(1e6 * seconds / COLD for seconds in turns[name].rounds)), _gain(turns, name)]
        for name in calls
    ]
    return Table(f"One row through 768 x {wide}, {COLD} layers in turn", ["weights", "us a layer", "over fp32"], rows)


def codes(model: Any, images: Tensor, options: Any) -> Table:
    """Search tokens of all images by the signs of their channels, and by cosine."""
    with torch.inference_mode():
        features = model.features(images)
    tokens = features.tokens[:, features.grid.prefix :].flatten(0, 1)
    tokens = tokens - tokens.mean(0)
    binary, queries = BinaryCodes.of(tokens), tokens[:: max(len(tokens) // QUERIES, 1)]
    unit = normalize(tokens)

    def by_cosine(count: int) -> Tensor:
        return (normalize(queries) @ unit.T).topk(count).indices

    nearest = by_cosine(NEAREST)
    calls: dict[str, Any] = {"fp32, cosine": lambda: by_cosine(NEAREST)}
    calls |= {f"codes, {count} found": partial(binary.search, queries, count) for count in (NEAREST, 10 * NEAREST)}
    turns = take_turns(calls, options)
    rows = []
    for name, call in calls.items():
        found = call() if "cosine" in name else call()[0]
        recall = (nearest[..., None] == found[:, None]).any(-1).float().mean().item()
        size = tokens.nbytes if "cosine" in name else binary.nbytes
        seconds = amount(Quantiles.of(1e3 * each / len(queries) for each in turns[name].rounds))
        rows.append([name, f"{size:,}", f"{recall:.1%}", seconds])
    title = f"{len(tokens):,} tokens of {tokens.shape[1]} channels, {len(queries)} queries, the {NEAREST} nearest"
    return Table(title, ["search", "bytes", "of the nearest", "ms a query"], rows)


def _gain(turns: dict[str, Timings], name: str) -> str:
    return ratio(turns[name].times_as_fast(turns["fp32"]))


if __name__ == "__main__":
    sys.exit(main())
