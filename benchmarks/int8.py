"""Speedup of int8 over our own bf16 (fp32 without it); `agreement.py` measures its error.

python benchmarks/int8.py                                     # batches of 8
python benchmarks/int8.py --models vit_tiny_patch16_224 --batch 32
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

import vitrail
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.inputs import blotches
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import unchanged
from vitrail.tasks.table import Table

MODELS = ("vit_tiny_patch16_224", "vit_base_patch16_224", "swin_tiny_patch4_window7_224")
FORMS = ("auto", "int8")


class Entry(NamedTuple):
    """One model in its two forms."""

    name: str
    forms: dict[str, Any]
    images: Tensor


def enter(name: str, batch: int) -> Entry:
    """Prepare a model."""
    tell(f"preparing {name}")
    model = ModelSpec(name).build()
    forms: dict[str, Any] = {form: vitrail.optimize(model, precision=form) for form in FORMS}
    for reason in forms["int8"].unconverted:
        tell(f"  {reason}")
    return Entry(name, forms, blotches(batch, model.config.in_channels, model.preprocess.size))


def speed(entries: list[Entry], options: Any) -> Table:
    """Measure both forms of all models in the same rounds."""
    calls = {
        f"{entry.name} {form}": partial(unchanged(entry.forms[form], entry.images), entry.images)
        for entry in entries
        for form in FORMS
    }
    turns = take_turns(calls, options)
    rows = [_row(entry, *(turns[f"{entry.name} {form}"] for form in FORMS)) for entry in entries]
    columns = ["model", "images/s", "in int8", "int8 over it"]
    return Table(f"Speed, batches of {options.batch}", columns, rows, right=columns[1:])


def _row(entry: Entry, usual: Timings, int8: Timings) -> list[str]:
    rates = (Quantiles.of(len(entry.images) / seconds for seconds in one.rounds) for one in (usual, int8))
    gain = Quantiles.of(a / b for a, b in zip(usual.rounds, int8.rounds, strict=True))
    return [entry.name, *map(amount, rates), ratio(gain)]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="which models")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    entries = [enter(name, options.batch) for name in options.models]
    show("int8", "int8 against our own bf16", [speed(entries, options)], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
