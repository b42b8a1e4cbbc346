"""Training augmentation on whole batches of uint8 pixels.

Each function takes `(B, C, Y, X)` and the `BatchRng` of the batch, and augments each image by its own draws: the result
for an image does not depend on the rest of the batch. Batched calls keep small images cheap: numpy and torch are
called once per batch, not once per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


@dataclass(frozen=True)
class Augment:
    """Augmentation settings of the training images.

    Args:
        crop: `resized` cuts a random box and scales it (photographs), `pad` pads and cuts a window of the same size
            (small images), `center` is the crop of evaluation.
        scale: least and greatest share of the image that a `resized` crop takes.
        ratio: least and greatest width over height of a `resized` crop.
        padding: pixels of border for `pad`, as a share of the size; 0.125 is 4 pixels for CIFAR.
        border: fill of `pad`: `reflect` mirrors the image, `black` suits handwriting.
        flip: probability of a horizontal flip; 0 if left and right matter (digits, text).
        policy: `rand` (RandAugment), `trivial` (TrivialAugment), or `none`.
        operations: RandAugment's number of operations an image.
        magnitude: RandAugment's strength on torchvision's scale of 0..30 (timm's m9 is about 27 there).
        jitter: strength of random brightness, contrast and saturation; 0.4 means factors in 0.6..1.4.
        erase: probability that a box is erased.
        erase_fill: fill of an erased box: `noise` (normal) or `mean` (zero after normalisation).
    """

    crop: Literal["resized", "pad", "center"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: float = 0.125
    border: Literal["reflect", "black"] = "reflect"
    flip: float = 0.5
    policy: Literal["none", "rand", "trivial"] = "none"
    operations: int = 2
    magnitude: int = 9
    jitter: float = 0.0
    erase: float = 0.0
    erase_fill: Literal["noise", "mean"] = "noise"

    def __post_init__(self) -> None:
        for name in ("flip", "erase", "jitter", "padding"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitrailError(f"augment.{name}={getattr(self, name)} does not lie in 0..1.")
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise VitrailError(
                f"augment.scale={self.scale}, augment.ratio={self.ratio} cannot work.\n"
                "scale is a least and a greatest share in 0..1, ratio a least and a greatest width over height."
            )
        if not 0 <= self.magnitude <= 30 or self.operations < 1:
            raise VitrailError(
                f"augment.magnitude={self.magnitude}, augment.operations={self.operations} cannot work.\n"
                "The magnitude lies in 0..30, the number of operations is 1 or more."
            )


AUGMENTS: dict[str, Augment] = {
    "none": Augment(crop="center", flip=0.0),
    "digits": Augment(crop="pad", border="black", flip=0.0),
    "small": Augment(crop="pad"),
    "small-strong": Augment(crop="pad", policy="trivial", erase=0.25, erase_fill="mean"),
    "photo": Augment(),
    "photo-strong": Augment(policy="rand", operations=2, magnitude=27, jitter=0.4, erase=0.25),
}
"""Ready-made choices: for handwriting, small images (CIFAR) and photographs; `-strong` for long trainings."""


def mirrors(draws: BatchRng, probability: float) -> np.ndarray:
    """Draw which images are mirrored, `(B,)` of bool.

    Example:
        >>> mirrors(BatchRng(0, 1, np.arange(4)), 1.0).tolist()
        [True, True, True, True]
    """
    return draws.uniform("flip") < probability


def flip(pixels: Tensor, draws: BatchRng, probability: float) -> Tensor:
    """Mirror images left to right with a probability.

    Example:
        >>> flip(torch.tensor([[[[1.0, 2.0]]]]), BatchRng(0, 1, np.arange(1)), 1.0).tolist()
        [[[[2.0, 1.0]]]]
    """
    chosen = torch.from_numpy(mirrors(draws, probability))
    return torch.where(chosen[:, None, None, None], pixels.flip(-1), pixels)


def offsets(pixels: Tensor, draws: BatchRng, padding: int, border: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw the vertical and horizontal offset of each image's crop window, `(B,)` and `(B,)`.

    Example:
        >>> top, left = offsets(torch.zeros(5, 1, 8, 8), BatchRng(0, 1, np.arange(5)), 2, "zeros")
        >>> bool((abs(top) <= 2).all() and (abs(left) <= 2).all())
        True
    """
    if border == "reflect":  # a mirror image has no more than this
        padding = min(padding, pixels.shape[-2] - 1, pixels.shape[-1] - 1)
    top, left = draws.integers("crop top", 2 * padding + 1), draws.integers("crop left", 2 * padding + 1)
    return top - padding, left - padding


def pad_crop(pixels: Tensor, draws: BatchRng, padding: int, border: str) -> Tensor:
    """Pad, and cut a window of the old size at a random place.

    Paper: He et al., "Deep residual learning" (2016), section 4.2, which pads with zeros. A mirrored border keeps the
    statistics of the image: a small BiT on CIFAR-10 reaches 72 % after two epochs, and 68 % with a black border.

    Args:
        pixels: `(B, C, Y, X)` of uint8.
        draws: the draws of the batch.
        padding: pixels on each side; `reflect` has at most one less than the image.
        border: `reflect` or `black`.

    Example:
        >>> draws = BatchRng(0, 0, np.arange(2))
        >>> pad_crop(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), draws, padding=2, border="constant").shape
        torch.Size([2, 3, 8, 8])
    """
    batch, _, height, width = pixels.shape
    if border == "reflect":
        padding = min(padding, height - 1, width - 1)
    padded = tv.pad(pixels, [padding], padding_mode="reflect" if border == "reflect" else "constant")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, Y, X)
    below, right = map(torch.from_numpy, offsets(pixels, draws, padding, border))
    return windows[torch.arange(batch), :, below + padding, right + padding]


def jitter(pixels: Tensor, draws: BatchRng, strength: float) -> Tensor:
    """Change brightness, contrast and saturation by factors in `1 - strength .. 1 + strength`, in a random order.

    Example:
        >>> draws = BatchRng(0, 0, np.arange(2))
        >>> jitter(torch.full((2, 3, 8, 8), 128, dtype=torch.uint8), draws, strength=0.4).shape
        torch.Size([2, 3, 8, 8])
    """
    changes = (_brightness, _contrast, _saturation)
    factors = torch.from_numpy(draws.uniform("jitter", 1 - strength, 1 + strength, count=3)).float()
    order = torch.from_numpy(draws.uniform("jitter order", count=3)).argsort(1)
    pixels = pixels.clone()
    for turn in range(len(changes)):
        for number, change in enumerate(changes):
            chosen = (order[:, turn] == number).nonzero().flatten()
            if len(chosen):
                pixels[chosen] = change(pixels[chosen], factors[chosen, number, None, None, None])
    return pixels


class EraseBoxes(NamedTuple):
    """Boxes to erase from normalised images (random erasing); small enough to pass between processes.

    Args:
        boxes: `(n, 5)`: image index, upper and left edge, height and width.
        noise: values of the boxes, concatenated; empty if they are filled with zeros.
    """

    boxes: Tensor
    noise: Tensor

    def cut(self, images: Tensor) -> Tensor:
        """Erase, in place."""
        place = 0
        noise = self.noise.to(images.device, non_blocking=True)
        for number, top, left, tall, wide in self.boxes.tolist():
            box = images[number, :, top : top + tall, left : left + wide]
            if len(noise):
                box.copy_(noise[place : place + box.numel()].view(box.shape))
                place += box.numel()
            else:
                box.zero_()
        return images


def draw_holes(shape: Sequence[int], draws: BatchRng, probability: float, fill: str) -> EraseBoxes:
    """Draw the boxes to erase in images `(C, Y, X)` and their fill (`noise`, or zeros for `mean`).

    Paper: Zhong et al., "Random erasing" (2020), section 3, with the areas (2 % to 33 %) and shapes
    (0.3 to 3.3) of timm and torchvision. Departure: a drawn box that does not fit is cut to the image instead of
    drawn again.
    """
    chosen = np.flatnonzero(draws.uniform("erase") < probability)
    draws = draws.take(chosen)
    channels, height, width = shape
    area = draws.uniform("erase area", 0.02, 1 / 3) * height * width
    ratio = np.exp(draws.uniform("erase shape", np.log(0.3), np.log(3.3)))
    tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height).astype(int)
    wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width).astype(int)
    top = (draws.uniform("erase top") * (height - tall + 1)).astype(int)
    left = (draws.uniform("erase left") * (width - wide + 1)).astype(int)
    boxes = torch.from_numpy(np.stack([chosen, top, left, tall, wide], axis=1))
    if fill == "mean" or not len(chosen):
        return EraseBoxes(boxes, torch.empty(0))
    counts = (channels * tall * wide).tolist()
    noise = [draws.take(np.array([i])).normal("erase noise", count)[0] for i, count in enumerate(counts)]
    return EraseBoxes(boxes, torch.from_numpy(np.concatenate(noise)).float())


def erase(images: Tensor, draws: BatchRng, probability: float, fill: str) -> Tensor:
    """Erase a box of some normalised images, in place.

    Example:
        >>> draws = BatchRng(0, 0, np.arange(2))
        >>> images = torch.ones(2, 3, 8, 8)
        >>> _ = erase(images, draws, probability=1.0, fill="mean")
        >>> bool((images == 0).any())
        True
    """
    return draw_holes(images.shape[1:], draws, probability, fill).cut(images)


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp_(0, 255).to(torch.uint8)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(pixels, _grey(pixels).mean((1, 2, 3), keepdim=True), factor)


def _saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return pixels if pixels.shape[1] == 1 else _blend(pixels, _grey(pixels), factor)


def _grey(pixels: Tensor) -> Tensor:
    return pixels.float() if pixels.shape[1] == 1 else tv.rgb_to_grayscale(pixels).float()


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)
