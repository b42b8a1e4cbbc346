"""Formulas of PyTorch's own layers with their numbers."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.trace.record import Call
from vitrail.trace.walk import millions


def layer_formula(call: Call) -> str:
    """Return the formula of one layer, or its shapes if its type is not known.

    Example:
        >>> import torch
        >>> from vitrail.trace.record import record
        >>> layer_formula(record(nn.Linear(8, 4), torch.zeros(1, 5, 8)))
        'Linear: y = W x + b, 5 × 8 → 4, 160 multiply-adds'
    """
    if call.x is None or call.y is None:
        return ""
    describe = next((_FORMULAS[kind] for kind in type(call.module).__mro__ if kind in _FORMULAS), _shapes)
    return describe(call)


def _shapes(call: Call) -> str:
    if call.y is call.x:
        return ""
    return f"{call.name}: {_size(call.x)} → {_size(call.y)}"


def _size(x: Any) -> str:
    return "·".join(str(n) for n in x.shape[1:]) or "1"


def _linear(call: Call) -> str:
    layer: Any = call.module
    x: Any = call.x
    rows = x.shape[:-1].numel()
    bias = " + b" if layer.bias is not None else ""
    work = millions(rows * layer.in_features * layer.out_features)
    return f"{call.name}: y = W x{bias}, {rows} × {layer.in_features} → {layer.out_features}, {work} multiply-adds"


def _conv(call: Call) -> str:
    layer: Any = call.module
    y: Any = call.y
    k = "·".join(str(n) for n in layer.kernel_size)
    places = "·".join(str(n) for n in y.shape[2:])
    each = layer.weight[0].numel()
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
    work = millions(y[0].numel() * each)
    channels = f"{layer.in_channels} → {layer.out_channels}"
    return f"{call.name} {k}{stride}{groups}: {channels}, {places} places, {work} multiply-adds"


def _norm(call: Call) -> str:
    return f"{call.name}: y = γ (x − mean) / √(var + ε) + β, over {call.module.normalized_shape[-1]} channels"  # pyright: ignore


def _batch(call: Call) -> str:
    return f"{call.name}: y = γ (x − μ) / √(σ² + ε) + β, running statistics of {call.module.num_features} channels"


def _group(call: Call) -> str:
    layer: Any = call.module
    each = layer.num_channels // layer.num_groups
    return f"{call.name}: mean and variance over {layer.num_groups} groups of {each} channels"


def _pool(call: Call) -> str:
    return f"{call.name}: {_size(call.x)} → {_size(call.y)}"


_FORMULAS: dict[type, Callable[[Call], str]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.Conv1d: _conv,
    nn.LayerNorm: _norm,
    _BatchNorm: _batch,
    nn.GroupNorm: _group,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool2d: _pool,
}
