"""Which input pixels a place of a restored image depends on: measured receptive field and local attribution map."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.shapes import Image


@dataclass(frozen=True)
class Attribution:
    """Dependence of a place of the output on the input.

    Args:
        field: largest change of the output pixel by a unit change of each input pixel, `(Y, X)`: its receptive field.
        reach: largest distance, in input pixels, at which `field` is not zero.
        attribution: local attribution map of the window around the pixel, `(Y, X)`, in 0..1.
        diffusion: diffusion index, 0 (one pixel decides) to 100 (all pixels alike).
    """

    field: Tensor
    reach: int
    attribution: Tensor
    diffusion: float


def attribute(
    model: Model, image: Image, row: int, column: int, window: int = 16, steps: int = 16, sigma: float = 9.0
) -> Attribution:
    """Attribute a place of the restored image to the pixels of the input.

    LAM = sum_k (x_k+1 - x_k) dD/dx (x_k),   x_k = blur(x, sigma (1 - k / steps)),   D = sum |gradient of y in a window|

    "Interpreting Super-Resolution Networks with Local Attribution Maps", Gu and Dong, 2021, sections 3.2 and 3.3: path
    gradients from a blurred image to the image, of a detector of edges. The diffusion index is 100 (1 - Gini).

    Args:
        model: an image restorer with `scale`.
        image: one image `(1, C, Y, X)` in 0..1.
        row: row of the output pixel.
        column: column of the output pixel.
        window: side of the window around the pixel, in output pixels.
        steps: steps of the path.
        sigma: standard deviation of the first blur.

    Raises:
        VitrailError: the pixel lies outside the restored image.

    Example:
        >>> import torch.nn as nn
        >>> class Blur(nn.Conv2d):
        ...     scale = 1
        >>> found = attribute(Blur(1, 1, 5, padding=2), torch.rand(1, 1, 20, 20), row=10, column=10, window=4)
        >>> found.reach, int((found.field > 0).sum())
        (2, 25)
    """
    height, width = (side * model.scale for side in image.shape[-2:])
    if not (0 <= row < height and 0 <= column < width):
        raise VitrailError(f"Pixel {row},{column} lies outside the restored image, which is {height} x {width}.")
    field = receptive_field(model, image, row, column)
    place = torch.tensor([row // model.scale, column // model.scale])
    touched = (field > 0).nonzero()
    reach = int((touched - place).abs().max()) if len(touched) else 0
    attribution = _path_gradients(model, image, _window(row, column, window, height, width), steps, sigma)
    return Attribution(field, reach, attribution / attribution.max().clamp(min=1e-12), 100 * (1 - gini(attribution)))


def receptive_field(model: Model, image: Image, row: int, column: int) -> Tensor:
    """Return the absolute gradient of an output pixel for each input pixel, `(Y, X)`, summed over channels."""
    x = image.detach().clone().requires_grad_()
    total = torch.zeros_like(image[0, 0])
    output = model(x)[0, :, row, column]
    for channel in output:  # one by one: gradients of channels could cancel
        [gradient] = torch.autograd.grad(channel, x, retain_graph=True)
        total += gradient[0].abs().sum(0)
    return total


def gini(values: Tensor) -> float:
    """Return the Gini coefficient of non-negative numbers: 0 if all are equal, towards 1 if one has everything.

    Example:
        >>> gini(torch.ones(5)), round(gini(torch.tensor([0.0, 0.0, 0.0, 1.0])), 2)
        (0.0, 0.75)
    """
    ordered = values.flatten().double().sort().values
    count, total = len(ordered), float(ordered.sum())
    if total == 0:
        return 0.0
    rank = torch.arange(1, count + 1, dtype=torch.float64, device=ordered.device)
    return float((2 * rank - count - 1) @ ordered) / (count * total)


def _window(row: int, column: int, side: int, height: int, width: int) -> tuple[slice, slice]:
    top, left = (max(place - side // 2, 0) for place in (row, column))
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _path_gradients(model: Model, image: Image, window: tuple[slice, slice], steps: int, sigma: float) -> Tensor:
    path = [_blurred(image, sigma * (1 - step / steps)) for step in range(steps + 1)]
    total = torch.zeros_like(image)
    for before, after in pairwise(path):
        x = before.clone().requires_grad_()
        y = model(x)[0][:, window[0], window[1]]
        edges = (y[:, 1:] - y[:, :-1]).abs().sum() + (y[:, :, 1:] - y[:, :, :-1]).abs().sum()
        [gradient] = torch.autograd.grad(edges, x)
        total += (after - before) * gradient
    return total[0].abs().sum(0)


def _blurred(image: Image, sigma: float) -> Tensor:
    """Blur with a Gaussian; edges are repeated."""
    if sigma < 0.1:
        return image
    half = round(3 * sigma)
    taps = torch.exp(-(torch.arange(-half, half + 1, device=image.device) ** 2) / (2 * sigma**2)).to(image)
    taps = (taps / taps.sum()).expand(image.shape[1], 1, -1)
    x = conv2d(pad(image, (half, half, 0, 0), mode="replicate"), taps[:, :, None, :], groups=image.shape[1])
    return conv2d(pad(x, (0, 0, half, half), mode="replicate"), taps[..., None], groups=image.shape[1])
