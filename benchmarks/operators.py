"""The attention operators in the shapes of real models, against PyTorch's own.

    python benchmarks/operators.py                        # all operators, bf16 and fp32, batches of 8
    python benchmarks/operators.py --operators window --precisions bf16

Each operator takes queries, keys and values as one projection left them and gives what the next projection takes:

- window attention in the blocks of Swin-T: shift, partition, scores with bias and mask, softmax, values, reverse;
  against roll, partition and PyTorch's fused attention, with bias and mask added up and laid out beforehand;
- attention to few keys in the blocks of PVT-Small, whose keys come from a map made smaller; against PyTorch's own;
- neighborhood attention in the blocks of NAT-T, with relative bias; against `unfold` and NATTEN (see neighborhood.py).
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from neighborhood import check_natten, natten_attend, unfold_attend
from sheet import DTYPES, begin, flags, show, take_turns, tell
from vitrail.bench.candidate import CandidateUnavailable, foreign
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.report import ratio
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import neighborhood
from vitrail.native.attention import TokenGroups, attend_groups, attend_keys, lane_bias
from vitrail.native.build import refusal
from vitrail.parts.attend import Attend, merge_heads, split_heads
from vitrail.parts.window_partition import PadThenRoll
from vitrail.tasks.table import Table

WINDOW, KERNEL, WIDTH = 7, 7, 32
# Side of the map, heads, shift, and how many blocks of the model are like that.
SWIN_T = ((56, 3, 0, 1), (56, 3, 3, 1), (28, 6, 0, 1), (28, 6, 3, 1), (14, 12, 0, 3), (14, 12, 3, 3), (7, 24, 0, 2))
# Queries, keys, heads of 64, and how many blocks of the model are like that.
PVT_S = ((3136, 49, 1, 3), (784, 49, 2, 4), (196, 49, 5, 6), (49, 49, 8, 3))
NAT_T = ((56, 2, 0, 3), (28, 4, 0, 4), (14, 8, 0, 18), (7, 16, 0, 5))

Blocks = Sequence[tuple[int, int, int, int]]


class Case(NamedTuple):
    """One operator in one shape.

    Args:
        title: heading.
        blocks: how many blocks of the model are like that.
        ours: names of the candidates that are ours.
        calls: every candidate.
        expected: the answer in fp32.
        absent: excluded candidates, with the reason.
    """

    title: str
    blocks: int
    ours: tuple[str, ...]
    calls: dict[str, Callable[[], Tensor]]
    expected: Tensor
    absent: dict[str, str]


def window_cases(batch: int, dtype: torch.dtype, blocks: Blocks = SWIN_T) -> Iterator[Case]:
    """Yield window attention in the blocks of a Swin."""
    for side, heads, shift, count in blocks:
        grid, n = Grid(side, side), WINDOW * WINDOW
        qkv = torch.randn(batch, grid.tokens, 3 * heads * WIDTH)
        bias = torch.randn(heads, n, n)
        cut = PadThenRoll.of(grid, WINDOW, shift)
        laid_out = addend_of(bias, cut, qkv).expand(batch, -1, -1, -1, -1).flatten(0, 1).contiguous()
        expected = window_by_sdpa(qkv, laid_out, grid, cut.shift, heads)
        given, addend, laid_out = qkv.to(dtype), bias.to(dtype), laid_out.to(dtype)
        calls: dict[str, Callable[[], Tensor]] = {
            "vitrail parts": partial(window_by_parts, given, addend, grid, cut, heads),
            "torch SDPA": partial(window_by_sdpa, given, laid_out, grid, cut.shift, heads),
        }
        ours, absent, reason = ["vitrail parts"], {}, refusal(dtype)
        if reason is None:
            ours.append("vitrail native")
            calls["vitrail native"] = native_window(given, bias, cut, heads)
        else:
            absent["vitrail native"] = reason
        title = f"{side} x {side}, {heads} heads" + ", shifted" * any(cut.shift)
        yield Case(title, count, tuple(ours), calls, expected, absent)


def window_by_parts(qkv: Tensor, bias: Tensor, grid: Grid, cut: PadThenRoll, heads: int) -> Tensor:
    """Compute window attention as our `WindowAttention` does between its projections."""
    q, k, v = split_heads(cut.split(grid.cells(qkv)), heads)
    return cut.join(merge_heads(Attend()(q, k, v, cut.separate(bias, like=q)))).flatten(1, 2)


def native_window(qkv: Tensor, bias: Tensor, cut: PadThenRoll, heads: int) -> Callable[[], Tensor]:
    """Return window attention as `vitrail.optimize` computes it.

    What it prepares once for a model is done here, beforehand: the table of who meets whom, the biases that differ, and
    the scale of the queries, which it folds into their projection.
    """
    width = qkv.shape[-1] // 3
    scale = torch.ones(3 * width)
    scale[:width] = (width // heads) ** -0.5
    addend = addend_of(bias, cut, bias)
    kinds, which = addend.unique(dim=0, return_inverse=True)
    token_index, laid_out = cut.token_index().int().contiguous(), lane_bias(kinds)
    padding, scaled = torch.zeros(3 * width, dtype=qkv.dtype), (qkv.float() * scale).to(qkv.dtype)
    return partial(attend_groups, scaled, heads, TokenGroups(token_index, padding, which.int(), laid_out))


def window_by_sdpa(qkv: Tensor, addend: Tensor, grid: Grid, shift: tuple[int, int], heads: int) -> Tensor:
    """Compute window attention by roll, partition and PyTorch's fused attention.

    Args:
        qkv: tokens `(B, N, 3 C)`.
        addend: bias and mask of each window, `(B * windows, h, n, n)`.
        grid: where the tokens sit.
        shift: rows and columns to roll by.
        heads: number of heads.
    """
    batch, down, right = len(qkv), grid.h // WINDOW, grid.w // WINDOW
    x = grid.cells(qkv)
    if any(shift):
        x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
    x = x.reshape(batch, down, WINDOW, right, WINDOW, 3, heads, -1)
    q, k, v = x.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch * down * right, heads, WINDOW * WINDOW, -1)
    x = scaled_dot_product_attention(q, k, v, attn_mask=addend)  # (B * windows, h, n, d)
    x = x.reshape(batch, down, right, heads, WINDOW, WINDOW, -1).permute(0, 1, 4, 2, 5, 3, 6)
    x = x.reshape(batch, grid.h, grid.w, -1)
    if any(shift):
        x = x.roll(shift, dims=(1, 2))
    return x.flatten(1, 2)


def addend_of(bias: Tensor, cut: PadThenRoll, like: Tensor) -> Tensor:
    """Add bias and mask up, `(windows, h, n, n)`."""
    windows = (cut.padded[0] // WINDOW) * (cut.padded[1] // WINDOW)
    addend = cut.separate(bias, like=like)
    assert addend is not None
    return addend.expand(windows, -1, -1, -1)


def few_keys_cases(batch: int, dtype: torch.dtype, blocks: Blocks = PVT_S) -> Iterator[Case]:
    """Yield attention to few keys in the blocks of a PVT."""
    for queries, keys, heads, count in blocks:
        q, kv = torch.randn(batch, queries, heads * 64), torch.randn(batch, keys, 2 * heads * 64)
        given = q.to(dtype), kv.to(dtype)
        calls: dict[str, Callable[[], Tensor]] = {
            "vitrail parts": partial(few_keys_by_parts, *given, heads),
            "torch SDPA": partial(few_keys_by_sdpa, *given, heads),
        }
        ours, absent, reason = ["vitrail parts"], {}, refusal(dtype, "attention")
        if reason is None:
            ours.append("vitrail native")
            scaled = (q / 8).to(dtype)  # by 1 / sqrt(d), which is folded into the projection
            calls["vitrail native"] = partial(attend_keys, scaled, given[1], heads)
        else:
            absent["vitrail native"] = reason
        title = f"{queries} queries, {keys} keys, {heads} heads"
        yield Case(title, count, tuple(ours), calls, few_keys_by_sdpa(q, kv, heads), absent)


def few_keys_by_parts(q: Tensor, kv: Tensor, heads: int) -> Tensor:
    """Compute attention of queries `(B, N, C)` to keys and values `(B, M, 2 C)` as our parts do."""
    k, v = kv.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    return merge_heads(Attend()(q.unflatten(2, (heads, -1)).transpose(1, 2), k, v))


def few_keys_by_sdpa(q: Tensor, kv: Tensor, heads: int) -> Tensor:
    """Compute attention of queries `(B, N, C)` to keys and values `(B, M, 2 C)` by PyTorch's fused attention."""
    k, v = kv.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    return merge_heads(scaled_dot_product_attention(q.unflatten(2, (heads, -1)).transpose(1, 2), k, v))


def neighborhood_cases(batch: int, dtype: torch.dtype, blocks: Blocks = NAT_T) -> Iterator[Case]:
    """Yield neighborhood attention in the blocks of a NAT."""
    for side, heads, _, count in blocks:
        exact = [torch.randn(batch, side, side, heads, WIDTH) for _ in range(3)]
        exact.append(torch.randn((2 * KERNEL - 1) ** 2, heads))
        expected = unfold_attend(*exact, kernel_size=KERNEL)
        given: list[Any] = [*(x.to(dtype) for x in exact), KERNEL, 1]
        calls: dict[str, Callable[[], Tensor]] = {"unfold": partial(unfold_attend, *given)}
        ours = []
        for backend in neighborhood.backends:
            if backend.name != "reference" and backend.unsupported_reason(*given) is None:
                ours.append(f"vitrail {backend.name}")
                calls[ours[-1]] = partial(backend.run, *given)
        absent: dict[str, str] = {}
        try:
            check_natten()
            with foreign("natten"):
                natten_attend(*given)
            calls["natten flex, no bias"] = partial(natten_attend, *given)
        except CandidateUnavailable as error:
            absent["natten flex"] = str(error)
        yield Case(f"{side} x {side}, {heads} heads", count, tuple(ours), calls, expected, absent)


OPERATORS: dict[str, tuple[str, Any]] = {
    "window": ("Window attention, 49 tokens, in the blocks of Swin-T", window_cases),
    "few keys": ("Attention to few keys, in the blocks of PVT-Small", few_keys_cases),
    "neighborhood": ("Neighborhood attention, 7 x 7, in the blocks of NAT-T", neighborhood_cases),
}


@torch.inference_mode()
def measure(operator: str, precision: str, options: Any) -> Table:
    """Measure an operator in every shape, and all blocks together."""
    title, cases = OPERATORS[operator]
    rows, absent, parts = [], {}, []
    for case in cases(options.batch, DTYPES[precision]):
        tell(f"{operator}, {precision}, {case.title}")
        turns = take_turns(case.calls, options)
        absent |= case.absent
        largest = case.expected.abs().max()
        errors = {
            name: ((call().float() - case.expected).abs().max() / largest).item() for name, call in case.calls.items()
        }
        rows += _rows(f"{case.title} ({case.blocks} x)", case.ours, turns, errors)
        parts.append((case, turns))
    rows += _rows("all blocks", parts[0][0].ours, _together(parts), {})
    columns = ["shape", "candidate", "ms", "the fastest of ours is × as fast", "error"]
    notes = [f"{name} did not take part: {why}" for name, why in absent.items()]
    return Table(f"{title}, {precision}, batches of {options.batch}", columns, rows, right=columns[2:], notes=notes)


def _error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return ((got.float() - expected).abs().max() / expected.abs().max()).item()


def _rows(shape: str, ours: Sequence[str], turns: dict[str, Timings], errors: dict[str, float]) -> Iterator[list[str]]:
    """Yield a row for each candidate, the fastest first."""
    best = min(ours, key=lambda name: turns[name].spread.median)
    for name in sorted(turns, key=lambda name: turns[name].spread.median):
        times = "" if name == best else ratio(turns[best].times_as_fast(turns[name]))
        error = f"{errors[name]:.1e}" if name in errors else ""
        yield [shape, name, f"{1e3 * turns[name].spread.median:.3g}", times, error]


def _together(parts: Sequence[tuple[Case, dict[str, Timings]]]) -> dict[str, Timings]:
    """Add the blocks of a model up, round by round."""
    sums = {
        name: [
            sum(case.blocks * seconds for (case, _), seconds in zip(parts, row, strict=True))
            for row in zip(*(turns[name].rounds for _, turns in parts), strict=True)
        ]
        for name in parts[0][1]
    }
    return {name: Timings(tuple((seconds,) for seconds in rounds)) for name, rounds in sums.items()}


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS), help="which of them")
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=["bf16", "fp32"], help="bf16, fp32 or both")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    tables = [measure(name, precision, options) for name in options.operators for precision in options.precisions]
    show("operators", "Attention operators", tables, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
