"""What int8 gains over our own bf16 (fp32 where there is none), and what it loses on pictures.

    python benchmarks/int8.py                                     # speed, batches of 8
    python benchmarks/int8.py --models vit_tiny_patch16_224 --weights FILE --source FOLDER --views 24

A picture's right class is what the model says of the whole picture in fp32; it is asked about many views of each.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vitrail
from sheet import begin, flags, show, take_turns, tell
from vitrail.lab.bench.execution import unchanged
from vitrail.lab.bench.inputs import blotches, views
from vitrail.lab.bench.page import amount, ratio
from vitrail.lab.bench.spread import Spread
from vitrail.lab.bench.subject import Subject
from vitrail.lab.bench.table import Table
from vitrail.lab.bench.turns import Turns
from vitrail.lab.pictures import find_pictures

MODELS = ("vit_tiny_patch16_224", "vit_base_patch16_224", "swin_tiny_patch4_window7_224")
FORMS = ("auto", "int8")
PART = 32


class Entry(NamedTuple):
    """One model in fp32 and in its two forms."""

    name: str
    plain: Any
    forms: dict[str, Any]
    images: Tensor


def enter(name: str, weights: str | None, batch: int) -> Entry:
    """Prepare a model."""
    tell(f"preparing {name}")
    model = Subject(name, weights=weights).build()
    forms: dict[str, Any] = {form: vitrail.optimize(model, precision=form) for form in FORMS}
    for reason in forms["int8"].kept:
        tell(f"  {reason}")
    return Entry(name, model, forms, blotches(batch, model.config.in_channels, model.preprocess.size))


def speed(entries: list[Entry], options: Any) -> Table:
    """Measure both forms of all models in the same rounds."""
    calls = {
        f"{entry.name} {form}": partial(unchanged(entry.forms[form], entry.images), entry.images)
        for entry in entries
        for form in FORMS
    }
    turns = take_turns(calls, options)
    rows = [_row(entry, *(turns[f"{entry.name} {form}"] for form in FORMS)) for entry in entries]
    columns = ["model", "pictures/s", "in int8", "int8 over it"]
    return Table(f"Speed, batches of {options.batch}", columns, rows, right=columns[1:])


def _row(entry: Entry, usual: Turns, int8: Turns) -> list[str]:
    rates = (Spread.of(len(entry.images) / seconds for seconds in one.rounds) for one in (usual, int8))
    gain = Spread.of(a / b for a, b in zip(usual.rounds, int8.rounds, strict=True))
    return [entry.name, *map(amount, rates), ratio(gain)]


def accuracy(entry: Entry, source: str, count: int) -> Table:
    """Ask a model and both of its forms about views of pictures."""
    whole = len(list(find_pictures(source, "RGB")))
    images = views(source, entry.plain.preprocess, whole * count)
    asked = {"fp32, as it is": entry.plain, **{f"optimized, {form}": entry.forms[form] for form in FORMS}}
    answers = {name: answer(model, images) for name, model in asked.items()}
    first = next(iter(answers.values()))
    truth = first[:whole].argmax(1).repeat(count)
    rows = []
    for name, logits in answers.items():
        right = (logits.argmax(1) == truth).float().mean().item()
        same = (logits.argmax(1) == first.argmax(1)).float().mean().item()
        far = ((logits - first).norm() / first.norm()).item()
        rows.append([name, f"{right:.2%}", f"{same:.2%}", f"{far:.4f}"])
    columns = ["form", "right", "as in fp32", "logits off by"]
    title = f"{entry.name} on {len(images)} views of {whole} pictures"
    return Table(title, columns, rows, right=columns[1:])


def answer(model: Any, images: Tensor) -> Tensor:
    """Return the logits of many pictures."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(PART)])


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="which models")
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch (default: 8)")
    parser.add_argument("--weights", help="trained weights of the model")
    parser.add_argument("--source", help="pictures to ask it about")
    parser.add_argument("--views", type=int, default=12, help="views of each of them (default: 12)")
    options = begin(parser, words)
    entries = [enter(name, options.weights, options.batch) for name in options.models]
    tables = [speed(entries, options)]
    if options.source:
        tables += [accuracy(entry, options.source, options.views) for entry in entries]
    show("int8", "int8 against our own bf16", tables, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
