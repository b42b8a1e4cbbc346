"""Mixup and CutMix: two images become one, and so do their labels."""

from dataclasses import dataclass
from math import sqrt
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


@dataclass(frozen=True)
class Mix:
    """Mix each image with its neighbour: `x = lam * x_i + (1 - lam) * x_j`, or a box of `x_j` pasted into `x_i`.

    Papers: mixup (Zhang et al., 2018, section 2), CutMix (Yun et al., 2019, section 3.1). Departures: as in timm, one
    `lam ~ Beta(alpha, alpha)` a step, and mixup or CutMix is chosen by `switch`. The partners are 2i and 2i + 1 (timm
    reverses the batch, torchvision rolls it): pairs stay together however a batch is cut over ranks or accumulation
    steps into even pieces, so the mixed images do not depend on it. The last of an odd batch stays as it is.

    Args:
        num_classes: width K of the soft targets.
        mixup: alpha of mixup, 0 for off.
        cutmix: alpha of CutMix, 0 for off.
        prob: probability that a step is mixed at all.
        switch: probability of CutMix when both are on.

    Shape:
        images `(B, C, Y, X)`, labels `(B,)` -> images `(B, C, Y, X)`, targets `(B, K)`, each row sums to one.

    Example:
        >>> images, labels = torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> mixed, targets = Mix(3, mixup=0.8, cutmix=1.0)(images, labels, seed=0, step=12)
        >>> targets.sum(1)
        tensor([1., 1., 1., 1.])
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not (0 <= self.prob <= 1 and 0 <= self.switch <= 1):
            raise VitrailError(
                f"mixup={self.mixup}, cutmix={self.cutmix}, prob={self.prob}, switch={self.switch} cannot work.\n"
                "mixup and cutmix are 0 (off) or more, the probabilities lie in 0..1."
            )

    def __bool__(self) -> bool:
        """Tell whether anything can be mixed."""
        return self.prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    def __call__(self, images: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Mix a batch; `(seed, step)` decides everything."""
        targets = one_hot(labels, self.num_classes).to(images.dtype)
        random = Random(int(BatchRng(seed, step, np.zeros(1)).words("mix")[0]))
        chance, choice = random.random(), random.random()
        if not self or chance >= self.prob:
            return images, targets
        if self.cutmix > 0 and (self.mixup == 0 or choice < self.switch):
            lam = random.betavariate(self.cutmix, self.cutmix)
            images, lam = _paste(images, lam, random)
        else:
            lam = random.betavariate(self.mixup, self.mixup)
            images = torch.lerp(_partners(images), images, lam)
        return images, torch.lerp(_partners(targets), targets, lam)


def _partners(x: Tensor) -> Tensor:
    """Swap neighbours: 1, 0, 3, 2, ...; the last of an odd batch is its own partner."""
    order = torch.arange(len(x), device=x.device)
    return x[torch.where(order ^ 1 < len(x), order ^ 1, order)]


def _paste(images: Tensor, lam: float, random: Random) -> tuple[Tensor, float]:
    """Paste a box of each partner, and return the share of the image that stayed."""
    height, width = images.shape[-2:]
    half = 0.5 * sqrt(1.0 - lam)
    y, x = random.randrange(height), random.randrange(width)
    top, bottom = max(round(y - half * height), 0), min(round(y + half * height), height)
    left, right = max(round(x - half * width), 0), min(round(x + half * width), width)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = _partners(images)[..., top:bottom, left:right]
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)
