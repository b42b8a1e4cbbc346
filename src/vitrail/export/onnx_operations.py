"""Operations of Vitrail as ONNX, where an exported program has one that is not PyTorch's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vitrail.export.libraries import required
from vitrail.export.padded_lstm import padded_lstm
from vitrail.parts.detection.suppression import suppress

_MOST = 1 << 20
"""Most boxes that a group keeps: no limit."""
_FLOAT, _INT32, _BOOL = 1, 6, 9
"""Types of ONNX's `TensorProto`."""


Sides = int | Sequence[int]
"""One number for both sides, or two."""


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return a function for each operation that writes it in operators of ONNX, as `torch.onnx.export` takes them."""
    op: Any = required("onnxscript").opset18

    def suppressed(boxes: Any, scores: Any, overlap: float) -> Any:
        """Write `suppress`; the operator lists (group, 0, place) of the boxes that it keeps."""
        listed = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), [_MOST], [overlap], [-0.5])
        places = op.Gather(listed, [0, 2], axis=1)
        ones = op.CastLike(op.Squeeze(op.Slice(places, [0], [1], [1]), [1]), scores)
        ones = op.Add(op.Mul(ones, 0.0), 1.0)
        none = op.Mul(op.CastLike(op.Cast(scores, to=_BOOL), scores), 0.0)
        return op.Cast(op.ScatterND(none, places, ones), to=_BOOL)

    def recurrent(x: Any, lengths: Any, w: Any, r: Any, b: Any) -> Any:
        """Write `padded_lstm`; the operator has time first, and both directions on an axis of their own."""
        both = int(w.shape[0]) == 2
        direction, hidden = "bidirectional" if both else "forward", int(r.shape[2])
        by_time = op.Transpose(x, perm=[1, 0, 2])
        states, *_ = op.LSTM(
            by_time, w, r, b, op.Cast(lengths, to=_INT32), direction=direction, hidden_size=hidden
        )  # (N, D, B, H)
        return op.Reshape(op.Transpose(states, perm=[2, 0, 1, 3]), [0, 0, -1])

    def sorted_stably(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """Write `sort(stable=True)`: `TopK` puts the lower index first if values are equal."""
        count = op.Gather(op.Shape(x), [dim])
        return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)

    def max_pool(
        x: Any, kernel: Sides, stride: Sides = (), padding: Sides = 0, dilation: Sides = 1, ceil_mode: bool = False
    ) -> Any:
        """Write `max_pool2d`, without `ceil_mode`, which OpenVINO refuses for sides below the kernel."""
        kernel = pair(kernel)
        stride, padding = pair(stride or kernel), pair(padding)
        if ceil_mode and (stride, padding, pair(dilation)) == (kernel, (0, 0), (1, 1)):
            x, ceil_mode = filled(x, kernel), False
        pooled, _ = op.MaxPool(
            *(x,),
            kernel_shape=kernel,
            strides=stride,
            pads=padding + padding,
            dilations=pair(dilation),
            ceil_mode=int(ceil_mode),
        )
        return pooled

    def average_pool(
        x: Any,
        kernel: Sides,
        stride: Sides = (),
        padding: Sides = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        """Write `avg_pool2d` in the same way; repeating a cell keeps the mean of two cells, not of three."""
        kernel = pair(kernel)
        stride, padding = pair(stride or kernel), pair(padding)
        if divisor_override:
            raise NotImplementedError("an average pooling with a divisor of its own")
        if ceil_mode and max(kernel) <= 2 and (stride, padding) == (kernel, (0, 0)):
            x, ceil_mode = filled(x, kernel), False
        return op.AveragePool(
            *(x,),
            kernel_shape=kernel,
            strides=stride,
            pads=padding + padding,
            ceil_mode=int(ceil_mode),
            count_include_pad=int(count_include_pad),
        )

    def filled(x: Any, kernel: tuple[int, int]) -> Any:
        """Repeat the last row and column of a map up to a multiple of a kernel."""
        sides = op.Shape(x, start=2)
        missing = op.Mod(op.Neg(sides), list(kernel))
        none = op.Constant(value_ints=[0, 0, 0, 0, 0, 0])  # a Pad with `axes` is permuted wrongly by ONNX Runtime 1.32
        return op.Pad(x, op.Concat(none, missing, axis=0), mode="edge")

    operations: Any = torch.ops
    return {
        operations.aten.max_pool2d.default: max_pool,
        operations.aten.avg_pool2d.default: average_pool,
        operations.aten.sort.stable: sorted_stably,
        operations.vitrail.suppress.default: suppressed,
        operations.vitrail.padded_lstm.default: recurrent,
    }


def pair(side: Sides) -> tuple[int, int]:
    """Return a size of both sides.

    Example:
        >>> pair(2), pair([2]), pair((2, 3))
        ((2, 2), (2, 2), (2, 3))
    """
    sides = [side] if isinstance(side, int) else list(side)
    return sides[0], sides[-1]


__all__ = ["onnx_translations", "padded_lstm", "suppress"]
