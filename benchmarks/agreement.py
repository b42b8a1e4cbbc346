"""How near each form of a model stays to the model in fp32, on real images.

    python benchmarks/agreement.py --models vit_tiny_patch16_224 --weights FILE --images FOLDER FOLDER
    python benchmarks/agreement.py --weights FILE --images FOLDER --views 24    # accuracy on crops of each image
    python benchmarks/agreement.py --weights FILE --data FOLDER --split val       # and top-1, where classes are known
    python benchmarks/agreement.py --models resnetv2_50x1_bit --images FOLDER   # random weights

With several views of each image, the label of a view is the fp32 prediction for the whole image.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vitrail
from sheet import begin, flags, show, tell
from vitrail.bench.inputs import views
from vitrail.bench.model_spec import ModelSpec
from vitrail.fused.answers import LOGITS
from vitrail.inference.evaluate import evaluate
from vitrail.tasks.classify.evaluate import open_split
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.table import Table

PRECISIONS = ("fp32", "bf16", "int8")
PART = 32

Answer = Callable[[Tensor], Tensor]


class Forms(NamedTuple):
    """A model as it was created, and its forms by name."""

    model: Any
    others: dict[str, Answer]


def enter(name: str, weights: str | None) -> Forms:
    """Prepare a model and its forms."""
    tell(f"preparing {name}")
    model = ModelSpec(name, weights=weights).build()
    others: dict[str, Answer] = {"plain, bf16": LOGITS.in_bf16(model)}
    for precision in PRECISIONS:
        form: Any = vitrail.optimize(model, precision=precision)
        others[f"optimized, {precision}"] = form
        for reason in form.unconverted:
            tell(f"  {precision} keeps {reason}")
    return Forms(model, others)


def agreement(name: str, forms: Forms, source: str, count: int) -> Table:
    """Ask a model and its forms about images, `count` views of each."""
    whole = len(find_images(source, "RGB"))
    tell(f"asking {name} about {source}")
    images = views(source, forms.model.preprocess, whole * count)
    expected = ask(forms.model, images)
    truth = expected[:whole].argmax(1).repeat(count) if count > 1 else None
    answers = {"fp32, as it is": expected, **{form: ask(answer, images) for form, answer in forms.others.items()}}
    rows = [_row(form, got, expected, truth) for form, got in answers.items()]
    columns = ["form", "class of fp32", "logits off by", "at most", "lead of others", *["right"] * (count > 1)]
    return Table(f"{name}: {source}, {len(images)} views of {whole} images", columns, rows, columns[1:], NOTES)


NOTES = (
    "Logits off by: length of all differences as a share of the length of all logits; at most: the largest difference"
    " as a share of their range. Lead of others: by how much the best class of fp32 led where another was named, in"
    " logits, at most.",
)


def _row(form: str, got: Tensor, expected: Tensor, truth: Tensor | None) -> list[str]:
    best, classes = expected.argmax(1), got.argmax(1)
    off, moved = got - expected, classes != best
    lead = (expected.amax(1) - expected.gather(1, classes[:, None])[:, 0])[moved]
    cells = [
        f"{1 - moved.float().mean().item():.2%}",
        f"{(off.norm() / expected.norm()).item():.2e}",
        f"{(off.abs().max() / (expected.max() - expected.min())).item():.2e}",
        f"{lead.max().item():.2f}" if len(lead) else "",
    ]
    return [form, *cells, *([] if truth is None else [f"{(classes == truth).float().mean().item():.2%}"])]


def accuracy(name: str, forms: Forms, data: str, split: str) -> Table:
    """Measure a model and its optimized forms on a data set."""
    images = open_split(data, split)
    rows = []
    for form, model in {"fp32, as it is": forms.model, **forms.others}.items():
        if isinstance(model, torch.nn.Module):  # bf16 as it is has no classes to match
            tell(f"evaluating {name}: {form}")
            top1 = evaluate(model, images, optimize=False).top1
            rows.append([form, f"{top1.value:.2%}", f"{top1.low:.1%} to {top1.high:.1%}"])
    columns = ["form", "top-1", "95% interval"]
    return Table(f"{name} on {images.name}, {len(images)} images", columns, rows, right=columns[1:])


def ask(answer: Answer, images: Tensor) -> Tensor:
    """Return the logits of many images."""
    with torch.inference_mode():
        return torch.cat([answer(part) for part in images.split(PART)])


def main(words: Sequence[str] | None = None) -> int:
    """Ask and show."""
    parser = flags(__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224"], help="which models")
    parser.add_argument("--weights", help="trained weights; random ones by default")
    parser.add_argument("--images", nargs="*", default=[], help="folders or patterns of images, a table each")
    parser.add_argument("--views", type=int, default=1, help="views of each of them (default: 1, the whole)")
    parser.add_argument("--data", help="images whose classes are known, such as a folder for each class")
    parser.add_argument("--split", default="all", help="which part of --data (default: all)")
    options = begin(parser, words)
    tables = []
    for name in options.models:
        forms = enter(name, options.weights)
        tables += [agreement(name, forms, source, options.views) for source in options.images]
        tables += [accuracy(name, forms, options.data, options.split)] if options.data else []
    show("agreement", "Forms against the model in fp32", tables, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
