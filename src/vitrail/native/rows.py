"""What a step of training does to rows between products, and back: LayerNorm, GELU, and the sum with the residual.

They compute on a CPU. The residual is in fp32 or bf16, what products take and give in the same or in bf16; weights,
statistics and sums are in fp32, and sums over rows are taken in the same order on any number of threads.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from vitrail.native.calls import at
from vitrail.native.library import SUFFIXES, library


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return LayerNorm of rows `(T, C)` in `dtype`, and the moments of each, `(T, 2)`: mean, one over deviation."""
    moments = torch.empty(len(x), 2)
    return _norm(x, weight, bias, eps, moments, dtype, again=False), moments


def norm_again(x: Tensor, weight: Tensor, bias: Tensor, moments: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what `norm` returned, from its moments."""
    return _norm(x, weight, bias, 0.0, moments, dtype, again=True)


def _norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, moments: Tensor, dtype: torch.dtype, again: bool
) -> Tensor:
    y = torch.empty_like(x, dtype=dtype)
    run, sizes = _function("norm", x.dtype, dtype), _sizes(x)
    run(at(x), *sizes, at(weight), at(bias), ctypes.c_float(eps), int(again), at(moments), at(y), _threads())
    return y


def norm_back(
    x: Tensor, weight: Tensor, moments: Tensor, into_y: Tensor, past: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, on top of what comes `past` the norm, of weight and of bias."""
    into_x, into_weight, into_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    run, given = _function("norm_back", x.dtype, into_y.dtype), (at(x), *_sizes(x), at(weight), at(moments))
    run(*given, at(into_y), at(past), at(into_x), at(into_weight), at(into_bias), _threads())
    return into_x, into_weight, into_bias


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return gelu(x + bias)."""
    y = torch.empty_like(x)
    _function("gelu", x.dtype, x.dtype)(at(x), *_sizes(x), at(bias), at(y), _threads())
    return y


def gelu_back_(x: Tensor, bias: Tensor, into: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the gradient of gelu(x + bias) into that of x, in place; return gelu(x + bias) and the bias's gradient."""
    y, into_bias = torch.empty_like(x), torch.empty_like(bias)
    run = _function("gelu_back", x.dtype, x.dtype)
    run(at(x), *_sizes(x), at(bias), at(y), at(into), at(into_bias), _threads())
    return y, into_bias


def rejoin(x: Tensor, bias: Tensor, keep: Tensor | None, past: Tensor) -> Tensor:
    """Return past + keep * (x + bias), with a factor `keep` for each of the samples that the rows are of, or None."""
    y = torch.empty_like(past)
    run, span = _function("rejoin", past.dtype, x.dtype), _span(x, keep)
    run(at(x), *_sizes(x), at(bias), at(keep), span, at(past), at(y), _threads())
    return y


def rejoin_back(into_y: Tensor, keep: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, in `dtype`, and of the bias."""
    same = keep is None and into_y.dtype == dtype
    into_x = into_y if same else torch.empty_like(into_y, dtype=dtype)
    into_bias = torch.empty(into_y.shape[1])
    run, span = _function("rejoin_back", into_y.dtype, dtype), _span(into_y, keep)
    run(at(into_y), *_sizes(into_y), at(keep), span, at(None if same else into_x), at(into_bias), _threads())
    return into_x, into_bias


def _function(name: str, rows: torch.dtype, products: torch.dtype) -> Callable[..., None]:
    """Return an operation for a precision of the residual and one of the products."""
    suffix = SUFFIXES[rows] if rows == products else "mixed"
    found = getattr(library("rows"), f"vitrail_{name}_{suffix}")
    found.restype = None
    return found


def _sizes(x: Tensor) -> tuple[ctypes.c_long, int]:
    return ctypes.c_long(x.shape[0]), x.shape[1]


def _span(x: Tensor, keep: Tensor | None) -> ctypes.c_long:
    return ctypes.c_long(len(x) if keep is None else len(x) // len(keep))


def _threads() -> int:
    return torch.get_num_threads()
