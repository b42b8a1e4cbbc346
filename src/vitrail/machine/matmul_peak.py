"""Measured peak GEMM throughput of this machine, which determines most of a model's latency."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

_SIDE = 768
# Rows, inputs and outputs of typical GEMMs: a square one, ViT-B's MLP with batch size 8, and large ones.
_SHAPES = ((768, 768, 768), (1576, 768, 3072), (1576, 3072, 768), (2048, 2048, 2048), (4096, 1024, 4096))


class Product(NamedTuple):
    """A GEMM to time.

    Args:
        name: its implementation, rows, inputs and outputs.
        flops: floating-point operations, two per multiply-add.
        run: runs it; blocks until it is done.
    """

    name: str
    flops: int
    run: Callable[[], object]


def matmul_rates() -> dict[str, float]:
    """Measure the GEMM throughput for each device and dtype, in Gflop/s (two operations per multiply-add).

    Takes about a second. The median over rounds is robust to other load on the same cores.
    """
    rates = {}
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        side = _SIDE if device == "cpu" else 8 * _SIDE
        for dtype in (torch.float32, torch.bfloat16):
            product = _plain((side, side, side), dtype, torch.device(device))
            rates[f"{device} {str(dtype).removeprefix('torch.')}"] = rate(product, seconds=0.25) / 1e9
    return rates


def best_product(dtype: torch.dtype, device: torch.device | str = "cpu", seconds: float = 0.1) -> Product:
    """Return the GEMM with the highest throughput here, over several shapes and all implementations of torch.

    Args:
        dtype: dtype of both factors.
        device: device of the GEMM.
        seconds: measuring time per candidate.
    """
    return max(products(dtype, torch.device(device)), key=lambda product: rate(product, seconds))


def products(dtype: torch.dtype, device: torch.device) -> list[Product]:
    """Return the candidates: plain GEMMs, and on a CPU those with weights prepacked for oneDNN or MKL."""
    if device.type != "cpu":
        return [_plain((8192, 8192, 8192), dtype, device), _plain((16384, 4096, 4096), dtype, device)]
    makers = (_plain, _packed_by_onednn, _packed_by_mkl)
    return [product for shape in _SHAPES for make in makers if (product := make(shape, dtype, device)) is not None]


def rate(product: Product, seconds: float) -> float:
    """Measure the throughput of a GEMM in operations per second: the median of all rounds in the given time."""
    product.run()  # warm-up: the first call selects a kernel
    times = sorted(_rounds(product.run, seconds))
    return product.flops / times[len(times) // 2]


def _rounds(run: Callable[[], object], seconds: float) -> Iterator[float]:
    end = perf_counter() + seconds
    while True:
        start = perf_counter()
        run()
        now = perf_counter()
        yield now - start
        if now > end:
            return


Shape = tuple[int, int, int]


def _plain(shape: Shape, dtype: torch.dtype, device: torch.device) -> Product:
    x, weight = _factors(shape, dtype, device)

    def run() -> None:
        linear(x, weight)[0, 0].item()  # waits for the device

    return _named("linear", shape, run)


def _packed_by_onednn(shape: Shape, dtype: torch.dtype, device: torch.device) -> Product | None:
    x, weight = _factors(shape, dtype, device)
    with suppress(RuntimeError, AttributeError):  # not supported by this build or this CPU
        ops: Any = torch.ops.mkldnn
        packed = ops._reorder_linear_weight(weight, shape[0])
        ops._linear_pointwise(x, packed, None, "none", [], "")
        return _named("oneDNN", shape, lambda: ops._linear_pointwise(x, packed, None, "none", [], ""))
    return None


def _packed_by_mkl(shape: Shape, dtype: torch.dtype, device: torch.device) -> Product | None:
    x, weight = _factors(shape, dtype, device)
    if dtype != torch.float32:
        return None
    with suppress(RuntimeError, AttributeError):
        ops: Any = torch.ops.mkl
        packed = ops._mkl_reorder_linear_weight(weight, shape[0])
        ops._mkl_linear(x, packed, weight, None, shape[0])
        return _named("MKL", shape, lambda: ops._mkl_linear(x, packed, weight, None, shape[0]))
    return None


def _factors(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, inputs, outputs = shape
    draw = torch.Generator(device).manual_seed(0)  # real values: a processor may run faster on zeros and ones
    x, weight = (torch.randn(n, inputs, device=device, generator=draw).to(dtype) for n in (rows, outputs))
    return x, weight


def _named(way: str, shape: Shape, run: Callable[[], object]) -> Product:
    rows, inputs, outputs = shape
    return Product(f"{way} {rows} x {inputs} x {outputs}", 2 * rows * inputs * outputs, run)
