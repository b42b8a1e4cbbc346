"""How fast this machine multiplies matrices, measured: the one number that most of a training's time follows from."""

from collections.abc import Iterator
from time import perf_counter

import torch

_SIDE = 768
_SECONDS = 0.25


def matmul_rates() -> dict[str, float]:
    """Measure the rate of a matrix product for each device and precision, in Gflop/s (two operations a multiply-add).

    Takes about a second. The median of the rounds is taken: a neighbour on the same cores slows single rounds.
    """
    rates = {}
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for dtype in (torch.float32, torch.bfloat16):
            rates[f"{device} {str(dtype).removeprefix('torch.')}"] = _rate(torch.device(device), dtype)
    return rates


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDE if device.type == "cpu" else 8 * _SIDE
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = sorted(_rounds(a, b))
    return 2 * side**3 / seconds[len(seconds) // 2] / 1e9


def _rounds(a: torch.Tensor, b: torch.Tensor) -> Iterator[float]:
    torch.mm(a, b)  # the first round pays for choosing a kernel
    end = perf_counter() + _SECONDS
    while True:
        start = perf_counter()
        product = a @ b
        product[0, 0].item()  # waits for the device
        now = perf_counter()
        yield now - start
        if now > end:
            return
