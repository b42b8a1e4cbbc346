"""Adapt weights to a model of other sizes: classes, channels, positions, windows, patches.

Learned tensors are resized if the resized tensor is meaningful; every change is reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vitrail.grid import Grid
from vitrail.parts.embeddings import PatchEmbedding
from vitrail.parts.positions import LearnedPosition, RelativePositionBias, resize_position


@dataclass
class Adapted:
    """Tensors adapted to a model, and the changes that were made.

    Args:
        tensors: by key of the model.
        changes: description of each change, by key.
        kept: keys of the model whose shape the checkpoint does not have, with the reason; such heads are zeroed.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def adapt(ours: Mapping[str, Tensor], model: nn.Module) -> Adapted:
    """Adapt tensors with our key names to the shapes of a model, if that is meaningful.

    A tensor that cannot be adapted is returned unchanged; a head of other classes is dropped.
    """
    result = Adapted()
    state = model.state_dict()
    for key, value in _move_norm(ours, state).items():
        if key not in state or value.shape == state[key].shape:
            result.tensors[key] = value
        elif _is_head_of_other_classes(key, value, state[key]):
            result.kept[key] = f"{len(value):,} classes in the checkpoint, {len(state[key]):,} in the model"
        else:
            result.tensors[key] = _fit(key, value, state[key], model, result)
    for key in state:
        if key.endswith(".clusters") and key not in result.tensors:
            result.kept[key] = "the checkpoint holds no color clusters; set them to those it was trained with"
    return result


def _fit(key: str, value: Tensor, target: Tensor, model: nn.Module, result: Adapted) -> Tensor:
    """Adapt one tensor to the shape of `target`, or return it unchanged."""
    owner = model.get_submodule(key.rpartition(".")[0])
    before, new = tuple(value.shape), value
    if isinstance(owner, LearnedPosition):
        new, how = resize_table(value, owner.grid, owner.mode), f"resized, {owner.mode}"
    elif isinstance(owner, RelativePositionBias):
        new, how = resize_relative(value, owner.size), "resized, bicubic"
    elif value.ndim == target.ndim == 4 and key.startswith("backbone.embedding.") and len(value) == len(target):
        new, how = change_channels(value, target.shape[1]), "channels changed"
        if isinstance(owner, PatchEmbedding | nn.Conv2d) and _is_patch(owner, target):
            new, how = resize_patch(new, target.shape[-1]), how if new.shape == target.shape else "patches resized"
    if new is value or new.shape != target.shape:
        return value
    result.changes[key] = f"{how}: {before} -> {tuple(new.shape)}"
    return new


def resize_table(table: Tensor, grid: Grid, mode: str = "bicubic") -> Tensor:
    """Resize a `(1, N, C)` position table to a grid; as many prefix tokens as the grid has are kept as they are.

    The cells of the old table must form a square; any other table is returned unchanged.

    Example:
        >>> resize_table(torch.zeros(1, 5, 8), Grid(3, 3, prefix=1)).shape
        torch.Size([1, 10, 8])
    """
    side = round(max(table.shape[1] - grid.prefix, 0) ** 0.5)
    if side == 0 or side * side + grid.prefix != table.shape[1]:
        return table
    return resize_position(table, Grid(side, side, grid.prefix), grid, mode)


def resize_relative(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a `((2w-1)^2, h)` table of relative position biases as the authors of Swin do: plain bicubic."""
    side = round(len(table) ** 0.5)
    if side * side != len(table):
        return table
    new = (2 * size[0] - 1, 2 * size[1] - 1)
    square = table.T.reshape(1, -1, side, side).float()  # (S^2, h) -> (1, h, S, S)
    square = interpolate(square, size=new, mode="bicubic", align_corners=False)
    return square.flatten(2)[0].T.to(table.dtype).contiguous()  # (1, h, S', S') -> (S'^2, h)


def change_channels(weight: Tensor, channels: int) -> Tensor:
    """Change the input channels of a first convolution, `(out, in, y, x)`.

    To one channel: the sum, so that a grey image gives the logits of its three equal channels. To k channels: the old
    ones repeated, scaled by old / k, so that the response to a constant image keeps its magnitude. (timm's rule.)

    Example:
        >>> change_channels(torch.ones(1, 3, 1, 1), 1).flatten(), change_channels(torch.ones(1, 3, 1, 1), 4).flatten()
        (tensor([3.]), tensor([0.7500, 0.7500, 0.7500, 0.7500]))
    """
    old = weight.shape[1]
    if channels == old:
        return weight
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeats = -(-channels // old)
    return (weight.float().repeat(1, repeats, 1, 1)[:, :channels] * (old / channels)).to(weight.dtype)


def resize_patch(weight: Tensor, patch_size: int) -> Tensor:
    """Resize a patch embedding so that a resized patch gives the token that the patch gave.

    w' = pinv(B^T) w with B the matrix of bicubic resizing. "FlexiViT: One Model for All Patch Sizes".

    Example:
        >>> resize_patch(torch.zeros(8, 3, 4, 4), 2).shape
        torch.Size([8, 3, 2, 2])
    """
    old = weight.shape[-1]
    if old == patch_size:
        return weight
    basis = torch.eye(old * old).reshape(old * old, 1, old, old)
    resized = interpolate(basis, size=(patch_size, patch_size), mode="bicubic", antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1).double())  # (p'^2, p^2), the pseudo-inverse of B^T
    flat = weight.double().flatten(2) @ inverse.T  # (out, in, p^2) -> (out, in, p'^2)
    return flat.unflatten(-1, (patch_size, patch_size)).to(weight.dtype)


def _is_patch(owner: nn.Module, target: Tensor) -> bool:
    """Return whether a convolution is a patch embedding (kernel size = stride)."""
    conv = owner.proj if isinstance(owner, PatchEmbedding) else owner
    return isinstance(conv, nn.Conv2d) and tuple(conv.kernel_size) == tuple(conv.stride) == tuple(target.shape[-2:])


def _is_head_of_other_classes(key: str, value: Tensor, target: Tensor) -> bool:
    """Return whether two tensors of a head differ in the number of classes only."""
    return key.startswith("head.") and value.ndim == target.ndim and value.shape[1:] == target.shape[1:]


def _move_norm(ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the last norm for the model, which has it before or after the pooling."""
    places = ("backbone.norm.", "head.pool.norm.")
    moved = {}
    for key, value in ours.items():
        for here, there in (places, places[::-1]):
            other = there + key.removeprefix(here)
            if key.startswith(here) and key not in state and other in state:
                key = other
                break
        moved[key] = value
    return moved
