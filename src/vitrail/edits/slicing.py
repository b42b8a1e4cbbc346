"""Selection of entries along one axis of a tensor of a module."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.parts.factorized_linear import FactorizedLinear


class GroupAxis(NamedTuple):
    """Axis of a tensor that is `parts x groups x width`, such as queries, keys and values of each head.

    Args:
        path: name of the tensor, from the module that is sliced.
        axis: number of the axis.
        parts: such as 3 for queries, keys and values.
    """

    path: str
    axis: int = 0
    parts: int = 1


def group_index(size: int, parts: int, groups: int, keep: Sequence[int]) -> Tensor:
    """Return the entries of an axis of `parts x groups x width` that belong to the groups kept.

    Example:
        >>> group_index(12, parts=2, groups=3, keep=[0, 2]).tolist()
        [0, 1, 4, 5, 6, 7, 10, 11]
    """
    return torch.arange(size).view(parts, groups, -1)[:, list(keep)].flatten()


def take_groups(module: nn.Module, axes: Iterable[GroupAxis], groups: int, keep: Sequence[int]) -> None:
    """Keep some groups of each axis in place; a tensor that is None stays so.

    Args:
        module: module that has the tensors, or whose parts have them.
        axes: the axes.
        groups: groups of each axis.
        keep: numbers of the groups that stay.
    """
    for path, axis, parts in axes:
        owner, name = find(module, path, axis)
        value: Tensor | None = getattr(owner, name)
        if value is not None:
            take(module, path, axis, group_index(value.shape[axis], parts, groups, keep))


def take(module: nn.Module, path: str, axis: int, index: Tensor) -> None:
    """Keep some entries of one axis of a parameter or buffer, in place; a tensor that is None stays so.

    Args:
        module: module that has it, or whose part has it.
        path: its name from there, such as `qkv.weight`.
        axis: the axis.
        index: entries to keep.
    """
    owner, name = find(module, path, axis)
    value: Tensor | None = getattr(owner, name)
    if value is None:
        return
    kept = value.detach().index_select(axis, index.to(value.device)).clone()
    if isinstance(value, nn.Parameter):
        setattr(owner, name, nn.Parameter(kept, requires_grad=value.requires_grad))
    else:
        setattr(owner, name, kept)
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = owner.weight.shape
    if isinstance(owner, nn.Conv2d) and name == "weight":
        depthwise = owner.groups > 1  # as many groups as channels
        owner.out_channels, owner.in_channels = len(owner.weight), owner.weight.shape[1] * owner.groups
        if depthwise:
            owner.in_channels = owner.groups = owner.out_channels


def find(module: nn.Module, path: str, axis: int) -> tuple[nn.Module, str]:
    """Return the module that owns a tensor, and its name there; of two factors the one with that axis."""
    place, _, name = path.rpartition(".")
    owner = module.get_submodule(place)
    if isinstance(owner, FactorizedLinear):
        owner = owner.first if axis == 1 else owner.second
    return owner, name
