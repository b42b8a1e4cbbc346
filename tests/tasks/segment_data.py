"""Drawn images with masks: discs and boxes on a noisy ground, told apart by colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([[60, 60, 60], [200, 60, 60], [60, 60, 200]])


def draw(seed: int, size: tuple[int, int] = (40, 32)) -> tuple[Image.Image, np.ndarray]:
    """Return an image and its mask: 0 ground, 1 a disc, 2 a box, 3 (void) along the upper edge."""
    random = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    cx, cy = random.uniform(5, width - 5), random.uniform(5, height - 5)
    mask[(x - cx) ** 2 + (y - cy) ** 2 < 64] = 1
    left, top = random.integers(0, width - 10), random.integers(0, height - 8)
    mask[top : top + 8, left : left + 10] = 2
    pixels = COLOURS[mask] + random.integers(-25, 26, (height, width, 3))
    mask[:2] = 3
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask


def write(root: Path, train: int = 16, val: int = 6, test: int = 6, sizes: bool = True) -> str:
    """Write a data set with class names; validation images differ in size. Return how it is named."""
    for split, count in (("train", train), ("val", val), ("test", test)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(count):
            size = (40, 32) if split == "train" or not sizes else (40 + 4 * (i % 3), 32)
            image, mask = draw(1000 * len(split) + i, size)
            image.save(root / split / f"{i:02d}.png")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{i:02d}.png")
    (root / "classes.txt").write_text("ground\ndisc\nbox\nvoid\n")
    return str(root)
