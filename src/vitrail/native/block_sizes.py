"""Block sizes of GEMMs, measured once for each machine and kept in the cache.

Two sizes of `blocking.h` are chosen among a few multiples of the formula from the L2 cache: bytes of a panel's block
along K, for each dtype, and bytes of a block of rows. Each output is one sum in ascending order for all of them, so the
choice changes no bit of a result. `VITRAIL_GEMM_BLOCKS=formula` keeps the formula and measures nothing.
"""

import ctypes
import json
import os
from collections.abc import Callable, Iterable, Sequence
from time import thread_time
from typing import NamedTuple

import torch

from vitrail.cache import cache_folder, fingerprint, written
from vitrail.errors import ResourceError, VitrailError
from vitrail.native.cpu_features import cpu_model

SWITCH = "VITRAIL_GEMM_BLOCKS"
DEEP, WIDE = (192, 3072, 256), (768, 256, 1536)
"""Rows, inputs and outputs of the measured products, one for blocks along K and one for blocks of rows."""
MULTIPLES = (1.0, 0.5, 2.0, 4.0)
"""Candidates, relative to the formula."""
TURNS = 7
GAIN = 0.03
"""Share of the time that a candidate must save to replace the formula."""
_DTYPES = {"float32": 1, "bfloat16": 2}  # suffix in symbols, values of a KPack
_K_STEPS = (1, 2, 4)


class BlockSizes(NamedTuple):
    """Bytes of a panel's block along K in fp32, bf16 and int8, and bytes of a block of rows."""

    panels: tuple[int, int, int]
    rows: int

    @classmethod
    def formula(cls, l2: int) -> "BlockSizes":
        """Return the sizes for an L2 cache of so many bytes, those of `blocking.h`.

        Example:
            >>> BlockSizes.formula(1 << 20)
            BlockSizes(panels=(209715, 209715, 209715), rows=524288)
        """
        panel = l2 // 5
        return cls((panel, panel, panel), l2 // 2)

    def set(self, library: ctypes.CDLL) -> None:
        """Set the sizes of a library."""
        for k_step, panel in zip(_K_STEPS, self.panels, strict=True):
            library.vitrail_set_blocks(k_step, panel, self.rows)


def best_block_sizes(gemm: ctypes.CDLL, build: str) -> BlockSizes | None:
    """Return the fastest block sizes of this machine, from the cache or measured in a third of a second.

    Args:
        gemm: the GEMM library.
        build: name of its file, which has a hash of source, compiler and instruction sets.

    Returns:
        The sizes; None to keep the formula: by choice, or without a cache to remember them.

    Raises:
        VitrailError: the environment variable has an unknown value.
    """
    asked = os.environ.get(SWITCH, "")
    if asked not in ("", "formula"):
        raise VitrailError(f"{SWITCH} is {asked!r}. Set it to 'formula', or unset it to measure block sizes once.")
    if asked:
        return None
    l2 = gemm.vitrail_set_l2(0)
    try:
        path = cache_folder("speed") / f"blocks-{fingerprint(build, l2, cpu_model())}.json"
        known = _read(path.read_bytes()) if path.is_file() else None
        if known is None:
            known = measured(gemm, BlockSizes.formula(l2))
            with written(path) as file:
                file.write(json.dumps(known).encode())
    except (OSError, ResourceError):
        return None
    return known


def measured(gemm: ctypes.CDLL, formula: BlockSizes) -> BlockSizes:
    """Measure the candidates on one thread, in its own processor time; the library keeps the formula."""
    suffixes = [suffix for suffix in _DTYPES if hasattr(gemm, f"vitrail_linear_{suffix}")]
    panels: dict[int, int] = dict.fromkeys(_K_STEPS, formula.panels[0])
    for suffix in suffixes:
        k_step = _DTYPES[suffix]
        run = _product(gemm, suffix, DEEP)
        panels[k_step] = _fastest(run, lambda size, k=k_step: gemm.vitrail_set_blocks(k, size, 0), formula.panels[0])
    run = _product(gemm, suffixes[-1], WIDE)
    rows = _fastest(run, lambda size: gemm.vitrail_set_blocks(1, 0, size), formula.rows)
    formula.set(gemm)
    panels[4] = panels[_DTYPES[suffixes[-1]]]  # int8 has the same bytes in a k-step
    return BlockSizes((panels[1], panels[2], panels[4]), rows)


def _product(gemm: ctypes.CDLL, suffix: str, shape: tuple[int, int, int]) -> Callable[[], None]:
    """Return a call of a linear layer; real values, without a draw from anybody's random numbers."""
    rows, inputs, outputs = shape
    dtype = getattr(torch, suffix)
    x, panels, y = (
        torch.linspace(-1, 1, n, device="cpu").to(dtype) for n in (rows * inputs, inputs * outputs, rows * outputs)
    )
    bias = torch.zeros(outputs, dtype=torch.float32, device="cpu")
    function = getattr(gemm, f"vitrail_linear_{suffix}")
    struct = function.argtypes[0]._type_
    weights = dict(struct._fields_)["weights"](
        panels=panels.data_ptr(),
        bias=bias.data_ptr(),
        inputs=inputs,
        outputs=outputs,
        step=None,
        sums=None,
        factors=None,
    )
    addresses = {"x": x.data_ptr(), "y": y.data_ptr(), "add": None}
    arguments = struct(**addresses, rows=rows, weights=weights, epilogue=0, eps=-1.0, threads=1)

    def run(_held: tuple[torch.Tensor, ...] = (x, panels, y, bias)) -> None:  # the call reads their memory
        function(arguments)

    return run


def _fastest(run: Callable[[], None], choose: Callable[[int], object], formula: int) -> int:
    """Return the best size; candidates take turns, and the fastest turn of each counts."""
    sizes = [int(multiple * formula) for multiple in MULTIPLES]
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(TURNS):
        for size in _rotated(sizes, turn):
            choose(size)
            start = thread_time()
            run()
            times[size].append(thread_time() - start)
    best = min(sizes, key=lambda size: min(times[size]))
    return best if min(times[best]) < (1 - GAIN) * min(times[formula]) else formula


def _rotated(sizes: Sequence[int], turn: int) -> Iterable[int]:
    first = turn % len(sizes)
    return [*sizes[first:], *sizes[:first]]


def _read(content: bytes) -> BlockSizes | None:
    """Return the sizes of a cache file; None if it is damaged."""
    try:
        panels, rows = json.loads(content)
        numbers = [int(size) for size in (*panels, rows)]
    except (ValueError, TypeError):
        return None
    return BlockSizes((numbers[0], numbers[1], numbers[2]), rows) if len(numbers) == 4 and min(numbers) > 0 else None
