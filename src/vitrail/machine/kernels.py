"""Table of kernel backends available here, or the reason why not, for tensors of typical shapes."""

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import vitrail.kernels
from vitrail.grid import Grid
from vitrail.kernels.dispatch import Op
from vitrail.kernels.fused_types import AttentionGroups, LinearWeights, NeighborhoodSpec, NormWeights


def _attention(device: torch.device, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    q, k, v = (torch.zeros(1, 3, 197, 64, device=device, dtype=dtype) for _ in range(3))
    return q, k, v, None


def _neighborhood(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    q, k, v = torch.zeros(1, 14, 14, 3, 8, 32, device=device, dtype=dtype).unbind(3)
    return q, k, v, torch.zeros(169, 8, device=device, dtype=dtype), 7, 1


def _window(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    token_index = torch.arange(196, device=device).reshape(4, 49)
    bias = torch.zeros(1, 3, 49, 49, device=device, dtype=dtype)
    qkv = torch.zeros(1, 196, 3 * 96, device=device, dtype=dtype)
    return qkv, None, bias, token_index.new_zeros(4), token_index, 3


def _branch(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, NormWeights]:
    weights = torch.ones(96, device=device, dtype=dtype)
    return torch.zeros(1, 196, 96, device=device, dtype=dtype), NormWeights(weights, weights, 1e-5)


def _linear(like: Tensor, inputs: int, outputs: int) -> LinearWeights:
    return LinearWeights(like.new_zeros(outputs, inputs), like.new_zeros(outputs))


def _attention_branch(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    _, _, bias, mask_index, token_index, heads = _window(device, dtype)
    x, norm = _branch(device, dtype)
    groups = AttentionGroups(heads, bias, mask_index, token_index)
    return x, norm, _linear(x, 96, 3 * 96), _linear(x, 96, 96), groups, None


def _neighborhood_branch(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    x, norm = _branch(device, dtype)
    spec = NeighborhoodSpec(3, x.new_zeros(169, 3), Grid(14, 14), kernel_size=7, dilation=1)
    return x, norm, _linear(x, 96, 3 * 96), _linear(x, 96, 96), spec, None


def _mlp_branch(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    x, norm = _branch(device, dtype)
    return x, norm, _linear(x, 96, 4 * 96), _linear(x, 4 * 96, 96), None


def _add_layer_norm(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    x, norm = _branch(device, dtype)
    return x, x, *norm


def _gelu(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    x, norm = _branch(device, dtype)
    return x, norm.bias


def _word_loss(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    x, table = (torch.zeros(count, 128, device=device, dtype=dtype) for count in (8, 1000))
    return x, table, torch.zeros(8, dtype=torch.long, device=device), 0.1


def _points(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    return torch.zeros(1, 1024, 3, device=device, dtype=dtype), 128, 0


def _neighbors(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    points, count, _ = _points(device, dtype)
    return points, points[:, :count], 16


def _balls(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    points, queries, size = _neighbors(device, dtype)
    return points, queries, (0.1, 0.2), (size, size)


def _kmeans(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    values = torch.arange(64, device=device, dtype=dtype)
    return values, torch.ones_like(values), 16


def _lookup(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    codes, tables = torch.zeros(192, 96, device=device, dtype=torch.uint8), torch.zeros(3, 16, device=device)
    return torch.zeros(1, 192, device=device, dtype=dtype), codes, tables, torch.ones(192, 1, device=device), 192


def _best_words(device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
    return torch.zeros(5, 1000, device=device, dtype=dtype), [0.0] * 5, [5], 10


# Arguments of each kernel for the check: those of its usual caller.
_USUAL: dict[str, Callable[[torch.device, torch.dtype], tuple[Any, ...]]] = {
    "attention": _attention,
    "fused attention": _attention_branch,
    "gelu": _gelu,
    "fused mlp": _mlp_branch,
    "neighborhood": _neighborhood,
    "fused neighborhood": _neighborhood_branch,
    "add layer norm": _add_layer_norm,
    "window": _window,
    "word loss": _word_loss,
    "farthest points": _points,
    "nearest points": _neighbors,
    "ball query": _balls,
    "kmeans": _kmeans,
    "lookup linear": _lookup,
    "best words": _best_words,
}


def find_kernels() -> list[Op]:
    """Return every kernel of `vitrail.kernels`; a folder has one or several."""
    folders = [module.name for module in pkgutil.iter_modules(vitrail.kernels.__path__) if module.ispkg]
    modules = [import_module(f"vitrail.kernels.{name}") for name in folders]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Op)]


def kernel_table() -> list[dict[str, str]]:
    """Return rows of kernel, device, precision, backend, and `runs`, `could run` or the reason why it cannot run.

    Example:
        >>> [row["backend"] for row in kernel_table() if row["kernel"] == "attention" and row["says"] == "runs"][:1]
        ['sdpa']
    """
    return list(_rows())


def _rows() -> Iterator[dict[str, str]]:
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for kernel in find_kernels():
        for device in devices:
            for dtype in (torch.float32, torch.bfloat16):
                runs = "runs"
                for backend, reason in kernel.explain(*_USUAL[kernel.name](torch.device(device), dtype)):
                    yield {
                        "kernel": kernel.name,
                        "device": device,
                        "precision": str(dtype).removeprefix("torch."),
                        "backend": backend,
                        "says": reason or runs,
                    }
                    runs = runs if reason else "could run"
