"""RandAugment and TrivialAugment on a batch: torchvision's operations, our draws.

Images that drew the same operation at the same strength are changed together by one call. Each image gets exactly
the result of torchvision's transform for the same draw.
"""

from collections.abc import Callable
from math import atan, degrees
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vitrail.data.stateless_rng import BatchRng

Operation = Callable[[Tensor, float], Tensor]
Space = dict[str, tuple[Operation | None, list[float], bool]]

BINS = 31


def _affine(pixels: Tensor, **change: Any) -> Tensor:
    return tv.affine(pixels, **{"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **change})


def _shear(pixels: Tensor, x: float, y: float) -> Tensor:
    return _affine(pixels, shear=[degrees(atan(x)), degrees(atan(y))], center=[0, 0])


_OPERATIONS: dict[str, Operation | None] = {
    "Identity": None,
    "ShearX": lambda pixels, m: _shear(pixels, m, 0),
    "ShearY": lambda pixels, m: _shear(pixels, 0, m),
    "TranslateX": lambda pixels, m: _affine(pixels, translate=[int(m), 0]),
    "TranslateY": lambda pixels, m: _affine(pixels, translate=[0, int(m)]),
    "Rotate": lambda pixels, m: tv.rotate(pixels, m),
    "Brightness": lambda pixels, m: tv.adjust_brightness(pixels, 1 + m),
    "Color": lambda pixels, m: tv.adjust_saturation(pixels, 1 + m),
    "Contrast": lambda pixels, m: tv.adjust_contrast(pixels, 1 + m),
    "Sharpness": lambda pixels, m: tv.adjust_sharpness(pixels, 1 + m),
    "Posterize": lambda pixels, m: tv.posterize(pixels, int(m)),
    "Solarize": lambda pixels, m: tv.solarize(pixels, 255.0 * m),
    "AutoContrast": lambda pixels, m: tv.autocontrast(pixels),
    "Equalize": lambda pixels, m: tv.equalize(pixels),
}
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


def _space(shear: float, move_x: float, move_y: float, turn: float, light: float, bits: int) -> Space:
    """Return each operation with its strengths and whether its sign is drawn."""
    greatest = {"ShearX": shear, "ShearY": shear, "TranslateX": move_x, "TranslateY": move_y, "Rotate": turn}
    greatest |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), light)
    strengths = {name: torch.linspace(0.0, top, BINS).tolist() for name, top in greatest.items()}
    strengths["Posterize"] = (8 - (torch.arange(BINS) / ((BINS - 1) / bits))).round().tolist()
    strengths["Solarize"] = torch.linspace(1.0, 0.0, BINS).tolist()
    return {name: (change, strengths.get(name, [0.0]), name in _SIGNED) for name, change in _OPERATIONS.items()}


def rand_space(height: int, width: int) -> Space:
    """Return the operations of RandAugment.

    Example:
        >>> sorted(rand_space(331, 331))[:2]
        ['AutoContrast', 'Brightness']
    """
    return _space(0.3, 150 / 331 * width, 150 / 331 * height, turn=30.0, light=0.9, bits=4)


def trivial_space() -> Space:
    """Return the operations of TrivialAugment (wide).

    Example:
        >>> len(trivial_space())
        14
    """
    return _space(0.99, 32.0, 32.0, turn=135.0, light=0.99, bits=6)


def rand_augment(pixels: Tensor, draws: BatchRng, operations: int, magnitude: int) -> Tensor:
    """Apply random operations of one strength, one after the other.

    Paper: Cubuk et al., "RandAugment" (2020), figure 2.

    Args:
        pixels: `(B, C, Y, X)` of uint8.
        draws: the draws of the batch.
        operations: how many an image.
        magnitude: 0..30.

    Example:
        >>> draws = BatchRng(0, 0, np.arange(2))
        >>> rand_augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), draws, operations=2, magnitude=9).shape
        torch.Size([2, 3, 8, 8])
    """
    space = rand_space(*pixels.shape[-2:])
    strength = np.full(len(draws), magnitude)
    for turn in range(operations):
        pixels = _apply(pixels, draws, space, strength, f"rand {turn}")
    return pixels


def trivial_augment(pixels: Tensor, draws: BatchRng) -> Tensor:
    """Apply one random operation of a random strength.

    Paper: Mueller and Hutter, "TrivialAugment" (2021), algorithm 1, wide space.

    Example:
        >>> trivial_augment(torch.rand(2, 3, 8, 8), BatchRng(0, 1, np.arange(2))).shape
        torch.Size([2, 3, 8, 8])
    """
    return _apply(pixels, draws, trivial_space(), draws.integers("trivial strength", BINS), "trivial")


def _apply(pixels: Tensor, draws: BatchRng, space: Space, strength: np.ndarray, purpose: str) -> Tensor:
    names = list(space)
    choice = draws.integers(purpose, len(names))
    sign = np.where(draws.uniform(purpose + " sign") < 0.5, -1.0, 1.0)
    groups: dict[tuple[str, float], list[int]] = {}
    for number, name in enumerate(np.array(names)[choice].tolist()):
        _, strengths, signed = space[name]
        value = strengths[min(int(strength[number]), len(strengths) - 1)] * (sign[number] if signed else 1.0)
        groups.setdefault((name, float(value)), []).append(number)
    pixels = pixels.clone()
    for (name, value), members in groups.items():
        change = space[name][0]
        if change is not None:
            pixels[members] = change(pixels[members], value)
    return pixels
