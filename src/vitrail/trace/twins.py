"""The slow twin of each attention: explicit loops, compared with the kernel on the tensors of this pass."""

from inspect import getsource
from math import exp, sqrt
from typing import Any

import torch
from torch import Tensor

from vitrail.kernels.neighborhood.reference import attend as neighborhood_reference
from vitrail.kernels.window.reference import attend as window_reference
from vitrail.parts.attend import Attend
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend
from vitrail.parts.token_mixers.window_attention import WindowAttend
from vitrail.trace.record import Call, tensors


def attend_loop(
    q: list[list[float]], k: list[list[float]], v: list[list[float]], bias: list[list[float]]
) -> list[list[float]]:
    """Attention of one head of one window, number by number.

    Example:
        >>> attend_loop([[1.0]], [[0.0], [0.0]], [[2.0], [4.0]], [[0.0, 0.0]])
        [[3.0]]
    """
    mixed = []
    for i in range(len(q)):
        scores = []
        for j in range(len(k)):
            dot = sum(a * b for a, b in zip(q[i], k[j], strict=True))
            scores.append(dot / sqrt(len(q[i])) + bias[i][j])
        largest = max(scores)
        weights = [exp(score - largest) for score in scores]
        total = sum(weights)
        mixed.append([sum(w / total * row[c] for w, row in zip(weights, v, strict=True)) for c in range(len(v[0]))])
    return mixed


LOOP_PAIRS = 80 * 80
"""Pairs of query and key up to which the loop is run; beyond, the reference alone."""


def twins(root: Call) -> list[dict[str, Any]]:
    """Compare the first attention of each kind and shape with its readable reference and with a loop.

    Returns:
        For each: `path`, `leaf`, `slow` and `fast` (the implementations), `difference` (largest, absolute), `scale`
        (largest absolute value of the output), and `loop`, the largest difference between one head of one window and
        the loop.
    """
    found, known = [], set()
    for call in root.walk():
        leaf: Any = call.module
        if not isinstance(leaf, Attend) or call.y is None:
            continue
        key = (type(leaf), *(tuple(x.shape) for x in tensors(call.args)))
        if key not in known:
            known.add(key)
            found.append(_twin(call, leaf))
    return found[:12]


def _twin(call: Call, leaf: Any) -> dict[str, Any]:
    fast = call.y
    assert fast is not None
    slow, name = _slow(call, leaf)
    return {
        "path": call.path,
        "leaf": type(leaf).__name__,
        "slow": name,
        "difference": float((slow.float() - fast.float()).abs().max()),
        "scale": float(fast.float().abs().max()),
        "loop": _loop(call, leaf),
    }


def _slow(call: Call, leaf: Any) -> tuple[Tensor, str]:
    """Return the output by the readable reference, and the name of that."""
    if isinstance(leaf, WindowAttend):
        window: Any = (*call.args, leaf.num_heads)
        return window_reference(*window), "kernels.window.reference"
    if isinstance(leaf, NeighborhoodAttend):
        args: Any = (*call.args, leaf.kernel_size, leaf.dilation)
        return neighborhood_reference(*args), "kernels.neighborhood.reference"
    q, k, v, bias = leaf.operands(*call.args)
    return leaf.maps(q, k, bias) @ v, f"{type(leaf).__name__}.maps(q, k, bias) @ v"


def _loop(call: Call, leaf: Any) -> float | None:
    """Return the largest difference of one head of the first group to `attend_loop`, if the leaf is plain attention."""
    if type(leaf) not in (Attend, WindowAttend):
        return None
    q, k, v, bias = leaf.operands(*call.args)
    if q.shape[-2] * k.shape[-2] > LOOP_PAIRS or q.ndim < 4:
        return None
    pairs = (*q.shape[:-1], k.shape[-2])
    addend = torch.zeros(()) if bias is None else bias
    addend = addend.expand(pairs)
    first = (0,) * (q.ndim - 2)
    loop = attend_loop(*(each[first].double().tolist() for each in (q, k, v, addend)))
    fast = call.y
    assert fast is not None
    if isinstance(leaf, WindowAttend):
        tokens = call.args[4][0]
        real = tokens >= 0
        want = fast[0, tokens[real], : q.shape[-1]]
        got = torch.tensor(loop)[real]
    else:
        want, got = fast[first], torch.tensor(loop)
    return float((got - want).abs().max())


def loop_source() -> str:
    """Return the source of the loop, without its docstring.

    Example:
        >>> loop_source().startswith("def ")
        True
    """
    lines = getsource(attend_loop).splitlines()
    end = next(i for i, line in enumerate(lines) if i > 1 and line.strip() == '"""')
    return "\n".join([lines[0], *lines[end + 1 :]])
