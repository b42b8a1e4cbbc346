"""On a GPU: Swin against timm at its best, and the attention operators against PyTorch's.

    python benchmarks/gpu.py                       # Swin-T and Swin-B in bf16, batches of 1, 32 and 128; operators
    python benchmarks/gpu.py --batches 128 --models swin_tiny_patch4_window7_224

Models: `vitrail.optimize` (Triton kernels, and CUDA graphs at small batches) against timm compiled with max-autotune,
with the same weights, answers compared in the same run. Window attention in the blocks of Swin-T, forward alone and
with its gradients, against roll, partition and PyTorch's fused attention, and against an index and FlexAttention,
compiled. Forward alone, bias and mask of these two are laid out beforehand. Without a GPU it says so and ends with
code 2.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

import vitrail
from operators import SWIN_T, WIDTH, WINDOW, addend_of, window_by_sdpa
from sheet import begin, flags, show, take_turns, tell
from vitrail.bench.candidate import CandidateUnavailable
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.libraries import from_timm
from vitrail.bench.report import ratio
from vitrail.bench.torch_runners import compiled, unchanged
from vitrail.fused.ab_trial import finished
from vitrail.fused.accuracy import compare
from vitrail.grid import Grid
from vitrail.kernels.window import window
from vitrail.kernels.window.reference import cut as cut_windows
from vitrail.parts.window_partition import PadThenRoll
from vitrail.tasks.table import Table

MODELS = ("swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224")
Calls = dict[str, Callable[[], Any]]


def models(options: Any) -> Table:
    """Measure whole models."""
    rows, absent = [], {}
    for name in options.models:
        model: Any = vitrail.create_model(name).eval().to(options.device)
        fast = unchanged(vitrail.optimize(model, precision="bf16"), torch.empty(0, device=options.device))
        for batch in options.batches:
            tell(f"{name}, batch {batch}")
            images = torch.randn(batch, 3, 224, 224, device=options.device)
            answers: dict[str, Callable[[Tensor], Tensor]] = {"vitrail optimized": fast}
            try:
                peer = from_timm(model, 224).to(torch.bfloat16)
                answers["timm, max-autotune"] = compiled(peer, images, False)
            except CandidateUnavailable as error:
                absent["timm"] = str(error)
            calls: Calls = {who: partial(answer, images) for who, answer in answers.items()}
            with torch.inference_mode():
                expected = model(images)
            errors = {who: compare(call(), expected, "bf16").error for who, call in calls.items()}
            rows += table_rows(f"{name}, {batch}", "vitrail optimized", take_turns(calls, options), errors, batch)
    columns = ["model, batch", "candidate", "ms", "images a second", "ours is × as fast", "error"]
    notes = [f"{name} did not take part: {why}" for name, why in absent.items()]
    return Table("Models in bf16", columns, rows, right=columns[2:], notes=notes)


def operators(batch: int, backward: bool, options: Any) -> Table:
    """Measure window attention in the blocks of Swin-T."""
    rows = []
    for side, heads, shift, _ in SWIN_T:
        tell(f"window attention, {side} x {side}, backward: {backward}")
        calls = window_calls(side, heads, shift, batch, options.device)
        with torch.no_grad():
            expected = calls["torch SDPA"]().float()
            errors = {who: error_of(call().float(), expected) for who, call in calls.items()}
        timed = {who: partial(step, call, backward, options.device) for who, call in calls.items()}
        title = f"{side} x {side}, {heads} heads" + ", shifted" * bool(shift)
        rows += table_rows(title, "vitrail", take_turns(timed, options), errors, batch)
    columns = ["shape", "candidate", "ms", "images a second", "ours is × as fast", "error against SDPA"]
    what = "forward and backward" if backward else "forward"
    return Table(f"Window attention in bf16, {what}, batches of {batch}", columns, rows, right=columns[2:])


def window_calls(side: int, heads: int, shift: int, batch: int, device: torch.device) -> Calls:
    """Return window attention three ways, of the same leaves: `qkv` and the bias ask for gradients."""
    grid, n = Grid(side, side), WINDOW * WINDOW
    qkv = torch.randn(batch, grid.tokens, 3 * heads * WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True)
    bias = torch.randn(heads, n, n, device=device, requires_grad=True)
    cut = PadThenRoll.of(grid, WINDOW, shift)
    token_index, mask_index = cut.token_index(device), cut.mask_index(device)

    def ours() -> Tensor:
        return window(qkv, None, cut.bias_plus_mask(bias, bias), mask_index, token_index, heads)

    def lay_out() -> Tensor:
        return addend_of(bias, cut, bias).to(qkv.dtype).expand(batch, -1, -1, -1, -1).flatten(0, 1).contiguous()

    laid_out = lay_out().detach()

    def sdpa() -> Tensor:
        return window_by_sdpa(qkv, lay_out() if torch.is_grad_enabled() else laid_out, grid, cut.shift, heads)

    place = torch.empty_like(token_index.flatten()).scatter_(
        0, token_index.flatten(), torch.arange(grid.tokens, device=device)
    )
    fused, count = torch.compile(flex_attention, dynamic=False), len(token_index)
    addends = addend_of(bias, cut, bias).detach().contiguous()

    def flex() -> Tensor:
        addend = addend_of(bias, cut, bias).contiguous() if torch.is_grad_enabled() else addends

        def score(value: Tensor, pair: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            return value + addend[pair % count, head, row, column]

        q, k, v = (x.flatten(0, 1).contiguous() for x in cut_windows(qkv, None, token_index, heads))
        mixed: Any = fused(q, k, v, score_mod=score)  # (B * windows, h, n, d)
        return mixed.transpose(1, 2).flatten(2).reshape(batch, grid.tokens, -1)[:, place]

    return {"vitrail": ours, "torch SDPA": sdpa, "FlexAttention": flex}


def step(call: Callable[[], Tensor], backward: bool, device: torch.device) -> None:
    """Compute, with the gradients where they are asked for, and wait for the device."""
    with torch.set_grad_enabled(backward):
        y = call()
        if backward:
            y.backward(torch.ones_like(y))
    finished(device)


def error_of(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


def table_rows(
    title: str, ours: str, turns: Mapping[str, Timings], errors: Mapping[str, float | None], batch: int
) -> Iterator[list[str]]:
    """Yield a row for each candidate, the fastest first."""
    for who in sorted(turns, key=lambda name: turns[name].spread.median):
        seconds = turns[who].spread.median
        times = "" if who == ours else ratio(turns[ours].times_as_fast(turns[who]))
        error = "not finite" if errors[who] is None else f"{errors[who]:.1e}"
        yield [title, who, f"{1e3 * seconds:.3g}", f"{batch / seconds:.0f}", times, error]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="which models; none after the flag: none")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32, 128], help="images in a batch")
    options = begin(parser, words)
    if not torch.cuda.is_available():
        tell("This measures a GPU, and PyTorch sees none here. On a CPU: python benchmarks/operators.py")
        return 2
    options.device = torch.device("cuda", torch.cuda.current_device())
    tables = [models(options)] if options.models else []
    tables += [operators(max(options.batches), backward, options) for backward in (False, True)]
    show("gpu", f"On {torch.cuda.get_device_name(options.device)}", tables, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
