"""How much of the machine each family uses: its FLOP rate over ViT-B's, as created and optimized.

    python benchmarks/families.py                         # bf16, batches of 8
    python benchmarks/families.py --models swin_tiny_patch4_window7_224 poolformer_s12 --precision fp32
    python benchmarks/families.py --candidates vitrail-optimized openvino timm-compiled     # also over the best peer

FLOPs are twice the multiply-adds of `vitrail.inference.flops`. All models take turns in the same rounds. GEU is the
share of the machine's fastest matrix product, measured in those rounds too.
"""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sheet import DTYPES, begin, flags, precision_flag, show, take_turns, tell
from vitrail.bench.candidate import Candidate
from vitrail.bench.inputs import blotches
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.prepare import Prepared, prepare_candidate
from vitrail.bench.registry import CANDIDATES
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import unchanged
from vitrail.errors import VitrailError
from vitrail.fused.accuracy import Agreement, compare
from vitrail.inference.flops import count_macs
from vitrail.machine.matmul_peak import best_product
from vitrail.models import catalogue
from vitrail.tasks.table import Table

MEASURE = "vit_base_patch16_224"
OURS = ["vitrail", "vitrail-optimized"]
FAMILIES = (
    MEASURE,
    "vit_base_r50_s16_224",
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "nest_tiny_jx",
    "pvt_small",
    "pvt_v2_b2",
    "twins_pcpvt_small",
    "nat_tiny",
    "dinat_tiny",
    "dinat_s_tiny",
    "poolformer_s12",
    "caformer_s18",
    "convnext_tiny",
    "imagegpt_small",
    "vmoe_s32_every2",
    "resnet50",
    "botnet50_s1",
    "halonet26t",
    "sasa_resnet26",
    "nonlocal1_resnet50",
    "vt_resnet50",
    "perceiver_io_conv",
    "perceiver_fourier",
    "mixer_b16_224",
    "cct_14_7x2_224",
    "resnetv2_50x1_bit",
    "tnt_s_patch16_224",
    "cpvt_small",
    "deepvit_patch16_224_re_attn_16b",
    "cait_s24_224",
    "convit_small",
    "xcit_small_12_p16_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch16_siglip_gap_224",
    "eva02_small_patch14_224",
    "retnet_small_patch16_224",
    "crossvit_small_240",
)
"""One variant of each family in the catalogue."""
PRODUCT = "product"


class Entry(NamedTuple):
    """One model run in one way of ours."""

    model: str
    candidate: str
    ready: Prepared
    images: Tensor
    flops: int
    agreement: Agreement
    weights_alone: float | None = None
    """Error of the plain model with its weights rounded, if the logits are outside of the tolerance."""

    @property
    def agrees(self) -> str:
        """Whether it agrees; if not, its error beside that of rounded weights alone."""
        if self.agreement.holds:
            return "yes"
        if self.agreement.error is None or self.weights_alone is None:
            return "NO"
        return f"NO: {self.agreement.error:.3f} (rounded weights alone {self.weights_alone:.3f})"


def rounded_weights_alone(model: nn.Module, images: Tensor, expected: Tensor) -> float | None:
    """Return the error of the model in fp32 whose weights were rounded to bf16."""
    rounded = deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16())
    return compare(unchanged(rounded, images)(images), expected, "bf16").error


def enter(name: str, precision: str, batch: int, imgsz: int | None, candidates: Sequence[str] = OURS) -> list[Entry]:
    """Prepare a model in every way asked for."""
    model = ModelSpec(name, imgsz=imgsz).build()
    images = blotches(batch, model.config.in_channels, model.preprocess.size)
    expected = unchanged(model, images)(images)
    entries = []
    for one in _named(candidates):
        tell(f"preparing {name}, {one.name}")
        try:
            ready = prepare_candidate(one, model, images, precision)
        except VitrailError as error:
            tell(f"  {error}")
            continue
        agreement = compare(ready.answer(images), expected, precision)
        if not (one.ours or agreement.holds):
            tell(f"  {name}, {one.name}: its logits are off by {agreement.error}")
        flops = 2 * batch * count_macs(model, model.preprocess.size)
        hard = one.ours and not agreement.holds and precision == "bf16"
        alone = rounded_weights_alone(model, images, expected) if hard else None
        entries.append(Entry(name, one.name, ready, images, flops, agreement, alone))
    return entries


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.add_argument("--models", nargs="+", default=FAMILIES, help="which models")
    parser.add_argument("--measure", default=MEASURE, help=f"the model to compare with (default: {MEASURE})")
    parser.add_argument("--imgsz", type=int, help="side of the images (default: each model's own)")
    names = [one.name for one in CANDIDATES]
    parser.add_argument("--candidates", nargs="+", choices=names, default=OURS, help="ways of ours, and peers")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    names = [name for name in dict.fromkeys([options.measure, *options.models]) if name in catalogue()]
    size = options.precision, options.batch, options.imgsz
    entries = [entry for name in names for entry in enter(name, *size, options.candidates)]
    product = best_product(DTYPES[options.precision])
    calls: dict[str, Callable[[], object]] = {
        _key(entry): partial(entry.ready.answer, entry.images) for entry in entries
    }
    turns = take_turns({**calls, PRODUCT: product.run}, options)
    tables = [table(one.name, entries, turns, product.flops, options) for one in _named(options.candidates)]
    tables.append(over_peers(entries, turns))
    show("families", "FLOP rates of the families", [one for one in tables if one.rows], options)
    return 0


def table(
    candidate: str, entries: list[Entry], turns: dict[str, Timings], product_flops: int, options: object
) -> Table:
    """Lay out the rates of all models in one way of ours."""
    mine = [entry for entry in entries if entry.candidate == candidate]
    yard = next((entry for entry in mine if entry.model == getattr(options, "measure", MEASURE)), None)
    rows = []
    for entry in mine:
        own = turns[_key(entry)]
        rate = Quantiles.of(entry.flops / seconds / 1e9 for seconds in own.rounds)
        geu = _rates(entry.flops, own, product_flops, turns[PRODUCT])
        over = "" if yard is None else ratio(_rates(entry.flops, own, yard.flops, turns[_key(yard)]))
        rows.append([entry.model, entry.ready.way, amount(rate), over, f"{geu.median:.3f}", entry.agrees])
    yard_name = "" if yard is None else yard.model
    columns = ["model", "way", "Gflop/s", f"over {yard_name}", "GEU", "agrees"]
    missing = [name for name in getattr(options, "models", ()) if name not in catalogue()]
    notes = [f"{name} is not in the catalogue." for name in missing]
    return Table(candidate, columns, rows, right=columns[2:5], notes=notes)


def over_peers(entries: list[Entry], turns: dict[str, Timings]) -> Table:
    """Lay out how many times as fast our optimized models are as each peer, round by round."""
    rows = []
    for mine in (entry for entry in entries if entry.candidate == OURS[-1]):
        peers = [entry for entry in entries if entry.model == mine.model and entry.candidate not in OURS]
        times = {peer.candidate: _rates(1, turns[_key(mine)], 1, turns[_key(peer)]) for peer in peers}
        best = min(times, key=lambda name: times[name].median, default=None)
        if best is not None:
            told = ", ".join(f"{name} {ratio(found)}" for name, found in times.items())
            rows.append([mine.model, best, f"{times[best].median:.2f}", told])
    return Table(
        "optimized over peers", ["model", "best peer", "times as fast", "by peer"], rows, right=["times as fast"]
    )


def _named(names: Sequence[str]) -> list[Candidate]:
    """Return candidates by name, in the order of the registry."""
    return [one for one in CANDIDATES if one.name in names]


def _rates(flops: int, own: Timings, other_flops: int, other: Timings) -> Quantiles:
    """Return one FLOP rate over another, round by round."""
    return Quantiles.of(flops / a / (other_flops / b) for a, b in zip(own.rounds, other.rounds, strict=True))


def _key(entry: Entry) -> str:
    return f"{entry.model} {entry.candidate}"


if __name__ == "__main__":
    sys.exit(main())
