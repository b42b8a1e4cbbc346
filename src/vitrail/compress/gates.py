"""Factors on groups of channels of a layer's input: gates whose gradient is a score, and masks."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[str, int]
"""Number of groups that the input channels of a layer are cut into, by the layer's name."""


def scale_groups(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply each group of channels of `(..., C)` by a factor, `(..., groups)`.

    Example:
        >>> scale_groups(torch.ones(1, 4), torch.tensor([1.0, 0.0])).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """
    return (x.unflatten(-1, (factors.shape[-1], -1)) * factors[..., None]).flatten(-2)


@contextmanager
def gates(model: nn.Module, inputs: Inputs) -> Iterator[dict[str, list[Tensor]]]:
    """Put gates of value one before layers; yield those of each call, `(B, 1, ..., groups)`, by name of the layer.

    Every sample has a gate of its own, so one backward pass gives the gradient of each sample.
    """
    made: dict[str, list[Tensor]] = defaultdict(list)

    def gate(name: str, x: Tensor) -> Tensor:
        ones = x.new_ones(len(x), *[1] * (x.ndim - 2), inputs[name]).requires_grad_()
        made[name].append(ones)
        return scale_groups(x, ones)

    with changed_inputs(model, inputs, gate):
        yield made


@contextmanager
def masked(model: nn.Module, inputs: Inputs, keep: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Set groups of channels to zero before layers; removing them must give the same.

    Args:
        model: the model.
        inputs: groups of each layer's input.
        keep: groups that stay.
    """

    def mask(name: str, x: Tensor) -> Tensor:
        factors = x.new_zeros(inputs[name])
        factors[list(keep[name])] = 1
        return scale_groups(x, factors)

    with changed_inputs(model, inputs, mask):
        yield


@contextmanager
def watched(model: nn.Module, inputs: Inputs, see: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Call `see(name, x)` with the input of each layer."""

    def look(name: str, x: Tensor) -> Tensor:
        see(name, x.detach())
        return x

    with changed_inputs(model, inputs, look):
        yield


@contextmanager
def changed_inputs(model: nn.Module, inputs: Inputs, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Replace the first input x of layers by `change(name, x)` inside the block."""
    with ExitStack() as stack:
        for name in inputs:

            def hook(module: nn.Module, given: tuple[Any, ...], name: str = name) -> tuple[Any, ...]:
                return (change(name, given[0]), *given[1:])

            handle = model.get_submodule(name).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield


def flat_outputs(output: object) -> Tensor:
    """Return all floating-point tensors of a model's output in one row.

    Example:
        >>> flat_outputs({"a": torch.zeros(2, 2), "b": (torch.ones(1), "name")}).tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0]
    """
    return torch.cat([part.flatten().float() for part in _tensors(output)])


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)
