"""The program of a model that a task exports: tensors in, tensors out, and the dimensions that may vary.

A task that can be exported has `program(model) -> ProgramSpec`; one that cannot has `no_program`, the reason and what
to do. `vitrail.export` writes, verifies and reads programs by these values alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.parts.model import Model

BATCHES = (1, 4, 1, 2, 3, 1, 2, 1)
"""Batches that a program is verified at."""
FIXED_BATCHES = (1, 2, 3, 4, 5, 7, 8, 16)
"""The same if nothing else varies."""

Sizes = Mapping[str, int]
"""Size of each named dimension."""


@dataclass(frozen=True)
class NamedAxis:
    """A dimension with a name.

    Args:
        name: such as `height`.
        own: size that the model was built for, the only one if it must be fixed.
        traced: size at which the program is traced; a size of 1 in any map is taken as a constant.
        quick: sizes that are tried before the file is written.
        tried: sizes that the file is verified at, one for each of `BATCHES`.
        small: smaller ones than a window or the coarsest stride; tried too if the model takes them.
    """

    name: str
    own: int
    traced: int
    quick: tuple[int, ...]
    tried: tuple[int, ...]
    small: tuple[int, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Args:
        name: its name in the file.
        shape: numbers, and names of dimensions; the first is `batch`.
        classes: dimension whose largest value is the answer; None if there is none.
        dtype: `float32` or `int64`.
    """

    name: str
    shape: tuple[str | int, ...]
    classes: int | None = None
    dtype: str = "float32"

    def dims(self, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape for sizes of the named dimensions.

        Example:
            >>> TensorSpec("ids", ("batch", "length")).dims({"batch": 2, "length": 5})
            (2, 5)
        """
        return tuple(sizes[each] if isinstance(each, str) else each for each in self.shape)


def _only(value: Any) -> tuple[Tensor, ...]:
    return (value,)


def _first(values: tuple[Tensor, ...]) -> Tensor:
    return values[0]


@dataclass(frozen=True)
class ProgramSpec:
    """A model as a program.

    Args:
        module: takes the input tensors, and returns one output or a tuple of them.
        inputs: input tensors.
        outputs: output tensors.
        axes: named dimensions besides `batch`.
        draw: random inputs for sizes of the named dimensions; by default normal numbers.
        encode: the arguments of `model(...)` as input tensors.
        decode: output tensors as what `model(...)` returns.
        attach: gives the model that a file describes its other methods, which run the program (incremental decoding).
        agree: comparison of all outputs with the model's, to error and agreement, if they are not compared one by one.
        grows: whether a dimension grows with each run, so that no file of fixed sizes is of use.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: tuple[NamedAxis, ...]
    draw: Callable[[Sizes, torch.Generator], tuple[Tensor, ...]] | None = None
    encode: Callable[..., tuple[Tensor, ...]] = field(default=_only)
    decode: Callable[[tuple[Tensor, ...]], object] = field(default=_first)
    attach: Callable[[Model, Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]], None] | None = None
    agree: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], tuple[float, bool]] | None = None
    grows: bool = False

    def example(self, sizes: Sizes, seed: int = 0) -> tuple[Tensor, ...]:
        """Return random inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.draw is not None:
            return self.draw(sizes, generator)
        return tuple(torch.randn(each.dims(sizes), generator=generator) for each in self.inputs)

    def own(self) -> dict[str, int]:
        """Return the size of each dimension besides `batch` that the model was built for."""
        return {axis.name: axis.own for axis in self.axes}

    def sizes_to_verify(self, any_size: bool) -> list[dict[str, int]]:
        """Return eight batches and sizes: the model's own, and others off the grid of windows and patches."""
        if not any_size:
            return [{"batch": batch, **self.own()} for batch in FIXED_BATCHES]
        return [{"batch": batch, **{axis.name: axis.tried[i] for axis in self.axes}} for i, batch in enumerate(BATCHES)]

    def small_sizes(self) -> list[dict[str, int]]:
        """Return the small sizes that the model takes; some architectures refuse inputs below a stride."""
        count = min((len(axis.small) for axis in self.axes), default=0)
        each = [{"batch": 1, **{axis.name: axis.small[i] for axis in self.axes}} for i in range(count)]
        return [sizes for sizes in each if self._takes(sizes)]

    def _takes(self, sizes: Sizes) -> bool:
        try:
            with torch.no_grad():
                self.module(*self.example(sizes))
        except (VitrailError, RuntimeError):
            return False
        return True


def image_axes(side: int) -> tuple[NamedAxis, NamedAxis]:
    """Return height and width of images; no size but the first two is a multiple of all windows and patches.

    Example:
        >>> [axis.name for axis in image_axes(224)]
        ['height', 'width']
    """
    odd, half, high = side // 2 + 13, side // 2, max(2 * side + 64, 576)
    rows = (side, side, side + 32, odd, side, odd + 7, half, max(side - 31, half))
    columns = (side, side, side, odd, odd, half, half, side + 5)
    return (
        NamedAxis("height", side, high, (side, 64, 97, 64), rows, (3, 17)),
        NamedAxis("width", side, high + 96, (side, 64, 131, 40), columns, (side, 5)),
    )


def image_program(model: Model, output: TensorSpec) -> ProgramSpec:
    """Return the program of a model of preprocessed images with one output.

    Args:
        model: its `preprocess` states the size, its config the channels.
        output: such as logits `("batch", K)`.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, num_classes=3)
        >>> image_program(model, TensorSpec("logits", ("batch", 3), classes=1)).inputs[0].shape
        ('batch', 3, 'height', 'width')
    """
    channels = getattr(model.config, "in_channels", 3)
    images = TensorSpec("images", ("batch", channels, "height", "width"))
    return ProgramSpec(model, (images,), (output,), image_axes(model.preprocess.size))


def class_program(model: Model) -> ProgramSpec:
    """Return the program of a classifier of images: logits `(B, K)`.

    Example:
        >>> from vitrail.models import create_model
        >>> class_program(create_model("vit_tiny_patch16_224", depth=1, num_classes=3)).outputs[0].shape
        ('batch', 3)
    """
    classes = getattr(model.config, "num_classes", 0)
    return image_program(model, TensorSpec("logits", ("batch", classes), classes=1))
