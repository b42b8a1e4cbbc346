"""Tensor transforms of key maps: `read` converts the library's tensors to ours, `write` is its exact inverse."""

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from vitrail.parts.positions import relative_index

if TYPE_CHECKING:
    from vitrail.models.vit import ViTConfig


Tensors = tuple[Tensor, ...]


class Transform(Protocol):
    """An invertible step: `read(*write(*x)) == x`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Make ours of theirs."""
        ...

    def write(self, *ours: Tensor, config: Any) -> Tensors:
        """Make theirs of ours."""
        ...


class Identity:
    """Rename only."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Pass."""
        return theirs

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Pass."""
        return ours


class Drop:
    """A buffer that we compute: ignored when read, never written."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop."""
        return ()

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Never called: there is no tensor of ours."""
        return ()


class Copy(Drop):
    """A second key of one tensor: an output layer that is the word table. Compared when read, never written.

    Args:
        of: our key of the tensor.
    """

    def __init__(self, of: str):
        self.of = of


class OldName:
    """Key of older files of the library: read, never written."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Pass."""
        return theirs

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Write nothing; the rule with the current key writes the tensor."""
        return ()


class Concat:
    """Concatenation of several tensors of the library: queries, keys and values; class and distillation token.

    Args:
        dim: the dimension of the concatenation, in equal shares.
        count: number of the library's tensors.
    """

    def __init__(self, dim: int, count: int):
        self.dim, self.count = dim, count

    def read(self, *theirs: Tensor) -> Tensors:
        """Put side by side."""
        return (torch.cat(theirs, self.dim),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Cut into equal pieces."""
        return tuple(piece.contiguous() for piece in ours[0].chunk(self.count, self.dim))


class Sections:
    """Concatenation of several tensors of the library in the first dimension, in unequal shares.

    Args:
        shares: share of each in the rows of ours: 2, 1 for queries with keys, and values.
    """

    def __init__(self, *shares: int):
        self.shares = shares

    def read(self, *theirs: Tensor) -> Tensors:
        """Put side by side."""
        return (torch.cat(theirs),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Cut into pieces."""
        rows = [share * len(ours[0]) // sum(self.shares) for share in self.shares]
        return tuple(piece.contiguous() for piece in ours[0].split(rows))


class PrefixSections:
    """Class token and registers are two tables of theirs, `(1, 1, C)` and `(1, r, C)`, and one of ours."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Put the class token first."""
        return (torch.cat(theirs, dim=1),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Cut the class token off."""
        return tuple(piece.contiguous() for piece in ours[0].split([1, ours[0].shape[1] - 1], dim=1))


class FoldedClassPlace:
    """Class token, registers and a position table with a place for the class token, which ours folds into the token."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Add the first place to the class token."""
        cls, registers, table = theirs
        return torch.cat([cls + table[:, :1], registers], dim=1), table[:, 1:].contiguous()

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Write a table whose first place is zero."""
        tokens, table = ours
        places = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
        return tokens[:, :1].contiguous(), tokens[:, 1:].contiguous(), places


class PositionMap:
    """Position table stored as a square map `(1, C, s, s)`; ours is `(1, s^2, C)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Flatten the map."""
        return tuple(x.flatten(2).mT.contiguous() for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Reshape the tokens to a map."""
        return tuple(x.mT.unflatten(2, (round(x.shape[1] ** 0.5), -1)).contiguous() for x in ours)


class UnusedZeros:
    """Unused zeros in the library's files, one for each cell of a position table with one prefix token."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop."""
        return ()

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Write zeros in the shape of the table without its prefix."""
        return (torch.zeros_like(ours[0][:, 1:]),)


class Stack:
    """Stack of several of our tensors in one of the library: the layer scales of a block."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Unbind the first dimension."""
        return tuple(piece.clone() for piece in theirs[0].unbind())

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Stack in a new first dimension."""
        return (torch.stack(ours),)


class PointwiseConv:
    """1 x 1 convolution `(out, in, 1, 1)` stored for our linear layer `(out, in)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Squeeze the last two dimensions."""
        return tuple(weight.flatten(1) if weight.ndim == 4 else weight for weight in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Restore the last two dimensions; a bias is unchanged."""
        return tuple(weight[:, :, None, None] if weight.ndim == 2 else weight for weight in ours)


class UnfoldOrder:
    """Patch merging by `nn.Unfold` (mmpretrain): channels slow and the four places fast, right before down.

    Ours is the authors' order: places slow, channels fast, down before right.
    """

    places = (0, 2, 1, 3)  # its own inverse

    def read(self, *theirs: Tensor) -> Tensors:
        """Reorder the last dimension: `(C, right, down)` to `(down, right, C)`."""
        return tuple(x.unflatten(-1, (-1, 4))[..., list(self.places)].transpose(-1, -2).flatten(-2) for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Reorder the last dimension back."""
        return tuple(x.unflatten(-1, (4, -1))[..., list(self.places), :].transpose(-1, -2).flatten(-2) for x in ours)


class RelativeIndex:
    """Relative position index, a buffer in the library's files that we compute.

    Args:
        flat: whether it is stored as one row (torchvision) or as a square (the authors).
    """

    def __init__(self, flat: bool):
        self.flat = flat

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop it."""
        return ()

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Compute it from the size of the table."""
        window = (round(ours[0].shape[0] ** 0.5) + 1) // 2
        square = relative_index(window, window).flatten(2, 3).flatten(0, 1)
        return (square.flatten() if self.flat else square,)


class KeyMinusQuery:
    """NATTEN's relative biases: a square for each head that counts key minus query, `(h, 2 k - 1, 2 k - 1)`.

    Ours is `((2 k - 1)^2, h)` and counts query minus key, as Swin's.
    """

    def read(self, *theirs: Tensor) -> Tensors:
        """Turn the squares around, put the heads last."""
        return tuple(x.flip(1, 2).flatten(1).mT.contiguous() for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Put the heads first, turn the squares around."""
        side = round(len(ours[0]) ** 0.5)
        return tuple(x.mT.unflatten(1, (side, side)).flip(1, 2) for x in ours)


class KeyBias:
    """Bias of queries, keys and values with an unused bias of the keys; ours has queries and values only."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Return the first and the last third."""
        q, _, v = theirs[0].chunk(3)
        return q.clone(), v.clone()

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Put zeros between the two."""
        q, v = ours
        return (torch.cat([q, torch.zeros_like(q), v]),)


class Kernel:
    """Kernel layout of Flax and TensorFlow, input before output: `(in, out)` and `(y, x, in, out)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Put the output first."""
        return tuple(x.permute(3, 2, 0, 1) if x.ndim == 4 else x.mT if x.ndim == 2 else x for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Put the output last."""
        return tuple(x.permute(2, 3, 1, 0) if x.ndim == 4 else x.mT if x.ndim == 2 else x for x in ours)


class PointwiseKernel:
    """1 x 1 convolution in Flax layout `(1, 1, in, out)` for our linear layer `(out, in)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop the window, put the output first."""
        return tuple(x[0, 0].mT for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Put the output last, add the window."""
        return tuple(x.mT[None, None] for x in ours)


class FlatNorm:
    """Norm scales of the JAX ResNet, `(1, 1, 1, C)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Flatten."""
        return tuple(x.flatten() for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Put three dimensions in front."""
        return tuple(x[None, None, None] for x in ours)


class FlaxQKV:
    """Flax attention with separate queries, keys, values and heads: three `(in, h, d)` kernels or `(h, d)` biases."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Join heads, then the three."""
        return (torch.cat([x.flatten(-2).mT if x.ndim == 3 else x.flatten() for x in theirs]),)

    def write(self, *ours: Tensor, config: "ViTConfig") -> Tensors:
        """Split the three, then heads."""
        pieces = ours[0].chunk(3)
        heads = (config.num_heads, -1)
        return tuple((x.mT if x.ndim == 2 else x).unflatten(-1, heads) for x in pieces)


class FlaxOut:
    """Flax output projection with separate heads: `(h, d, out)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Join heads, put the output first."""
        return tuple(x.flatten(0, 1).mT for x in theirs)

    def write(self, *ours: Tensor, config: "ViTConfig") -> Tensors:
        """Put the output last, split heads."""
        return tuple(x.mT.unflatten(0, (config.num_heads, -1)) for x in ours)


SAME, DROP, OLD_NAME = Identity(), Drop(), OldName()
