"""A model whose output is a function of brightness, and images of one grey each."""

import numpy as np
import torch
from torch import nn

from vitrail.data.dataset import Arrays, ImageSet
from vitrail.models import create_model
from vitrail.preprocess import Preprocess

CLASSES = ("dark", "dim", "light", "white")


class Brightness(nn.Module):
    """Four classes of brightness; logits are minus the distance of the mean to 32, 96, 160 and 224, times sharpness."""

    variant = "brightness"
    labels: tuple[str, ...] | None = CLASSES
    preprocess = Preprocess(size=8, crop=1.0, mean=(0.0,), std=(1.0,))

    def __init__(self, sharpness: float = 0.1):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([32.0, 96.0, 160.0, 224.0]))
        self.sharpness = sharpness

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = 255 * images.mean(dim=(1, 2, 3))
        return -self.sharpness * (mean[:, None] - self.centres).abs()


def grey_set(values: list[int], labels: list[int], classes: tuple[str, ...] = CLASSES) -> ImageSet:
    """Return images of one grey each."""
    pixels = np.broadcast_to(np.array(values, dtype=np.uint8)[:, None, None, None], (len(values), 1, 8, 8)).copy()
    return ImageSet("greys", classes, [f"grey/{i:03d}.png" for i in range(len(values))], labels, Arrays(pixels))


def mislabelled_greys() -> ImageSet:
    """Return sixteen images, of which 3 are labelled wrong on purpose (numbers 1, 6 and 15)."""
    values = [10, 20, 30, 40, 90, 100, 110, 95, 150, 160, 170, 165, 230, 240, 220, 215]
    labels = [0, 1, 0, 0, 1, 1, 3, 1, 2, 2, 2, 2, 3, 3, 3, 0]
    return grey_set(values, labels)


def tiny_model() -> nn.Module:
    """Return a small real model with ten classes, always the same."""
    torch.manual_seed(0)
    grey = Preprocess(size=16, crop=1.0, mean=(0.5,), std=(0.5,))
    sizes = {"dim": 24, "depth": 2, "num_heads": 2, "patch_size": 4}
    model = create_model("vit_tiny_patch16_224", num_classes=10, in_channels=1, preprocess=grey, **sizes)
    model.labels = tuple("0123456789")
    return model.eval()
