"""PSNR, SSIM and loss of a validation."""

from collections.abc import Callable
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from vitrail.tasks.restore.patches import RestoreBatch
from vitrail.tasks.restore.quality import psnr, ssim

EQUAL = 100.0
"""PSNR, in dB, that an image without any error counts with in a mean."""


class QualityProtocol:
    """Protocol of PSNR and SSIM.

    Args:
        border: pixels left out at each edge.
        luma: whether to measure the luma of colour images.
    """

    def __init__(self, border: int, luma: bool):
        self.border, self.luma = border, luma

    def __str__(self) -> str:
        channels = "luma (16-235)" if self.luma else "all channels"
        return f"{channels}, border of {self.border} left out, rounded to 8 bits"

    def fitting(self, shape: tuple[int, ...]) -> int:
        """Return the border for an image; tiny images are measured whole."""
        return self.border if min(shape[:2]) > 2 * self.border else 0

    def measure(self, image: Tensor, truth: Tensor) -> tuple[float, float]:
        """Return PSNR and SSIM of `(C, Y, X)` in 0..1."""
        x, y = to_pixels(image), to_pixels(truth)
        border = self.fitting(x.shape)
        return psnr(x, y, border, self.luma), ssim(x, y, border, self.luma)


def to_pixels(image: Tensor) -> np.ndarray:
    """Return `(C, Y, X)` in 0..1 as `(Y, X, C)` in 0..255.

    Example:
        >>> to_pixels(torch.ones(3, 1, 2)).tolist()
        [[[255.0, 255.0, 255.0], [255.0, 255.0, 255.0]]]
    """
    return image.detach().float().permute(1, 2, 0).cpu().numpy() * 255.0


def usual_protocol(scale: int, channels: int) -> QualityProtocol:
    """Return the field's protocol: super-resolution crops its scale and measures luma, the rest measures everything."""
    return QualityProtocol(scale if scale > 1 else 0, scale > 1 and channels == 3)


class RestorationMetric:
    """PSNR, SSIM and loss of a validation, as sums over images that ranks can all-reduce.

    Args:
        loss: mean loss of a batch.
        protocol: channels, range and border of PSNR and SSIM.
        device: device of the outputs.

    Attributes:
        sums: images, loss, PSNR, images with an SSIM, SSIM; float64.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], protocol: QualityProtocol, device: torch.device):
        self.loss, self.protocol = loss, protocol
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def update(self, outputs: Tensor, batch: RestoreBatch) -> None:
        """Add a batch."""
        for output, truth in zip(outputs, batch.high, strict=True):
            quality, similarity = self.protocol.measure(output, truth)
            seen = isfinite(similarity)  # images smaller than the window of SSIM have none
            row = [1.0, float(self.loss(output, truth)), min(quality, EQUAL), seen, similarity if seen else 0.0]
            self.sums += torch.tensor(row, dtype=torch.float64, device=self.sums.device)

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        """Return `loss`, `psnr` and `ssim`, each a mean over the images."""
        count, loss, quality, seen, similarity = self.sums.tolist()
        figures = {"loss": loss / count, "psnr": quality / count}
        return {**figures, "ssim": similarity / seen} if seen else figures
