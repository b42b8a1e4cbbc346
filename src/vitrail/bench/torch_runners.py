"""Variants of a PyTorch module: eager or compiled, with bf16 weights or under autocast, channels last or not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.bench.candidate import Answer, Variant
from vitrail.fused.ab_trial import finished

Build = Callable[[nn.Module, Tensor], nn.Module]
"""From our model and an example batch to a module that may be changed."""

Runner = Callable[[nn.Module, Tensor, bool], Answer]
"""From a module, an example batch and whether to cast under autocast, to `Answer`."""


def eager_ways(build: Build, model: nn.Module, precision: str) -> list[Variant]:
    """Return the eager variants of a module: each cast, and channels last too if the model has convolutions.

    Args:
        build: builds the module.
        model: our model, to detect convolutions.
        precision: `fp32` or `bf16`.
    """
    convolves = sum(parameter.ndim == 4 for parameter in model.parameters()) > 1  # more than its patch embedding
    layouts = (False, True) if convolves else (False,)
    return [_way(build, eager, cast, last) for cast in _CASTS[precision] for last in layouts]


def compiled_ways(build: Build, precision: str) -> list[Variant]:
    """Return the compiled variants of a module with frozen weights, one for each cast."""
    return [_way(build, compiled, cast, False) for cast in _CASTS[precision]]


def eager(module: nn.Module, example: Tensor, cast: bool) -> Answer:
    """Run a module eagerly."""
    return _answer(module, example.device, next(module.parameters()).dtype, cast)


def unchanged(module: nn.Module, example: Tensor) -> Answer:
    """Run a module that casts its input itself."""
    return _answer(module, example.device, torch.float32, False)


def compiled(module: nn.Module, example: Tensor, cast: bool) -> Answer:
    """Run a module through `torch.compile` for this shape; returns after compilation.

    On a CPU the weights are frozen into the program and packed for its GEMMs; on a GPU `max-autotune` selects the best
    kernels and records a CUDA graph.
    """
    from torch._inductor import config

    cuda = example.is_cuda
    program: Any = torch.compile(module, dynamic=False, mode="max-autotune" if cuda else None)
    answer = _answer(program, example.device, next(module.parameters()).dtype, cast)
    with config.patch(freezing=not cuda):
        answer(example)
    return answer


class _Cast(NamedTuple):
    name: str
    dtype: torch.dtype
    autocast: bool


_CASTS = {
    "fp32": (_Cast("fp32 weights", torch.float32, False),),
    "bf16": (_Cast("bf16 weights", torch.bfloat16, False), _Cast("autocast", torch.float32, True)),
}


def _way(build: Build, run: Runner, cast: _Cast, last: bool) -> Variant:
    layout: Any = dict(memory_format=torch.channels_last) if last else {}

    def start(module: nn.Module, example: Tensor) -> Answer:
        return run(module.to(cast.dtype, **layout), example, cast.autocast)

    return Variant(cast.name + ", channels last" * last, build, start)


def _answer(call: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype, cast: bool) -> Answer:
    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=cast):
            logits = call(images.to(dtype)).float()
        finished(device)
        return logits

    return answer
