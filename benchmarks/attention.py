"""Time and memory of every kind of attention over the length, the exponent of their growth, and the error.

    python benchmarks/attention.py                      # 128 to 16,384 tokens
    python benchmarks/attention.py --longest 2048 --out attention.md

One forward pass of a batch of one, the median of `--repeats` runs in turns over the kinds, and the growth of resident
memory in it. The exponent p of t = a N^p is fitted to the longest half of the lengths, where constant costs are small.
The error is |y - y_full| / |y_full| of random inputs and weights, the same for both, at the longest length up to 2,048;
kinds that compute another function of their own (a pattern, a decay) have none. LSH attention shares queries and keys,
so it is compared with itself in a single bucket. Linformer's projections are learned: untrained, its error is large.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from vitrail.layouts import TokenSequence
from vitrail.machine.host_memory import peak_of, resident, trim_on_free
from vitrail.parts.attend import Attend
from vitrail.parts.token_mixers.chunked_attention import CausalLSHAttention, LocalChunkAttention
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.lsh_attention import LSHAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.retention import ChunkwiseRetention, Retention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention
from vitrail.parts.token_mixers.star_attention import StarTransformer
from vitrail.tasks.table import Table

DIM, HEADS = 128, 4
COMPARED = 2048  # largest length of the error


class MatrixAttend(Attend):
    """Softmax attention that keeps the whole matrix of probabilities, as a loop over formulas would."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None = None):
        """Mix the values by the matrix."""
        return self.maps(q, k, bias) @ v


def kinds(longest: int) -> dict[str, Callable[[int], nn.Module]]:
    """Return a factory of each kind, by the length it is built for."""
    return {
        "full, fused": lambda n: SelfAttention(DIM, HEADS),
        "full, matrix": lambda n: SelfAttention(DIM, HEADS, attend=MatrixAttend()),
        "Linformer, rank 128": lambda n: LinformerAttention(DIM, HEADS, n, rank=128),
        "Performer, 256 features": lambda n: PerformerAttention(DIM, HEADS, features=256),
        "LSH, 2 rounds, chunk 64": lambda n: LSHAttention(DIM, HEADS, buckets=max(2, n // 64 * 2)),
        "Reformer's local, chunk 64": lambda n: LocalChunkAttention(DIM, HEADS, DIM // HEADS, 64),
        "Reformer's LSH, 2 rounds, chunk 64": lambda n: CausalLSHAttention(
            DIM, HEADS, DIM // HEADS, buckets=(max(2, n // 64 * 2),), rounds=2
        ),
        "retention, chunk 64": lambda n: Retention(DIM, HEADS, retain=ChunkwiseRetention(64)),
        "fixed sparse, sqrt N": lambda n: FixedSparseAttention(DIM, HEADS, block=max(16, round(n**0.5))),
        "Star-Transformer": lambda n: StarTransformer(DIM, HEADS, depth=1),
    }


def exponent(lengths: list[int], values: list[float]) -> float:
    """Return the slope of log(value) over log(length), of the longest half.

    Example:
        >>> round(exponent([1, 2, 4, 8], [9.0, 4.0, 16.0, 64.0]), 6)
        2.0
    """
    half = len(lengths) // 2
    pairs = [(n, value) for n, value in zip(lengths[half:], values[half:], strict=True) if value > 0]
    if len(pairs) < 2:
        return float("nan")  # memory below the resolution of the operating system
    x, y = np.log(np.array(pairs)).T
    return float(np.polyfit(x, y, 1)[0])


def error(name: str, make: Callable[[int], nn.Module], n: int) -> float | None:
    """Return the relative error against full attention with the same weights; None for another function."""
    if not name.startswith(("Linformer", "Performer", "LSH")):
        return 0.0 if name.startswith("full") else None
    torch.manual_seed(0)
    mixer, x = make(n).eval(), torch.randn(1, n, DIM)
    if name.startswith("LSH"):
        exact: nn.Module = LSHAttention(DIM, HEADS, buckets=1, rounds=1, chunk=n)
    else:
        exact = SelfAttention(DIM, HEADS)
    state = mixer.state_dict()
    exact.load_state_dict({key: state[key] for key in exact.state_dict() if key != "hashes"}, strict=False)
    with torch.inference_mode():
        want, got = (each.eval()(x, TokenSequence(n)) for each in (exact, mixer))
    return float((got - want).norm() / want.norm())


def measure(lengths: list[int], repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return seconds and bytes of each kind by length."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in kinds(lengths[-1])}
    for n in lengths:
        x, mixers = torch.randn(1, n, DIM), {name: make(n).eval() for name, make in kinds(n).items()}
        times: dict[str, list[float]] = {name: [] for name in mixers}
        with torch.inference_mode():
            for name, mixer in mixers.items():
                with trim_on_free():
                    mixer(x, TokenSequence(n))
                    before = resident()
                    peak = peak_of(lambda mixer=mixer, x=x, n=n: mixer(x, TokenSequence(n)), torch.device("cpu"))
                found[name][1].append(float(peak - before))
            for _ in range(repeats):
                for name, mixer in mixers.items():
                    began = perf_counter()
                    mixer(x, TokenSequence(n))
                    times[name].append(perf_counter() - began)
        for name, each in times.items():
            found[name][0].append(float(np.median(each)))
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lengths = [n for n in (128 * 2**i for i in range(20)) if n <= given.longest]
    found, rows = measure(lengths, given.repeats), []
    for name, make in kinds(lengths[-1]).items():
        seconds, memory = found[name]
        off = error(name, make, min(COMPARED, lengths[-1]))
        told = "own function" if off is None else f"{off:.3f}"
        rows.append([name, *(f"{1000 * value:.1f}" for value in seconds), f"{exponent(lengths, seconds):.2f}",
                     f"{memory[-1] / 2**20:.0f}", f"{exponent(lengths, memory):.2f}", told])  # fmt: skip
    columns = ["attention", *(f"{n} ms" for n in lengths), "exponent", "MiB at the end", "exponent of memory", "error"]
    table = Table(f"Attention, {DIM} channels, {HEADS} heads, fp32, {torch.get_num_threads()} threads", columns, rows,
                  right=columns[1:])  # fmt: skip
    print(table.section())
    if given.out:
        given.out.write_text(table.section())


if __name__ == "__main__":
    main()
