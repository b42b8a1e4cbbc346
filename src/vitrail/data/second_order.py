"""Second-order degradation of Real-ESRGAN: blur, resize, noise and JPEG, twice, and a final sinc filter.

"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", Wang et al., 2021, section 3.4 and
figure 2, with the probabilities and ranges of the authors' `train_realesrnet_x4plus.yml`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

from vitrail.data.blur_kernels import filter_image, gaussian_kernel, generalised_kernel, plateau_kernel, sinc_kernel
from vitrail.data.degradations import compress, to_8_bit
from vitrail.data.stateless_rng import BatchRng


class Order(NamedTuple):
    """Ranges of one of the two rounds.

    Args:
        blur_share: probability of a blur.
        sigma: standard deviations of the blur.
        resize: probabilities to enlarge, reduce, keep.
        factor: least and largest factor of the resize.
        noise: standard deviations of Gaussian noise, 0..255.
        poisson: scales of Poisson noise.
        quality: JPEG qualities.
    """

    blur_share: float
    sigma: tuple[float, float]
    resize: tuple[float, float, float]
    factor: tuple[float, float]
    noise: tuple[float, float]
    poisson: tuple[float, float]
    quality: tuple[int, int] = (30, 95)


FIRST = Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))
SINC_SHARE, FINAL_SINC_SHARE, GAUSSIAN_SHARE, GREY_SHARE = 0.1, 0.8, 0.5, 0.4
_KERNELS = ("iso", "aniso", "generalised iso", "generalised aniso", "plateau iso", "plateau aniso")
_KERNEL_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class SecondOrder:
    """Blur, resize, noise and JPEG, twice, then a sinc filter and JPEG in either order.

    Args:
        scale: factor by which the image gets smaller.
    """

    scale: int

    @property
    def reach(self) -> int:
        """Input pixels around a pixel that its output depends on."""
        return 32 * self.scale

    def __call__(self, image: np.ndarray, rng: BatchRng) -> np.ndarray:
        height, width = (max(round(side / self.scale), 1) for side in image.shape[:2])
        x = _blurred(image, FIRST, rng.at(101))
        x = _resized(x, _random_size(image.shape, FIRST, rng.at(101)), rng.at(101))
        x = _compressed(_noisy(x, FIRST, rng.at(101)), FIRST, rng.at(101))
        second = rng.at(102)
        x = _blurred(x, SECOND, second)
        x = _resized(x, _random_size((height, width), SECOND, second), second)
        x = _noisy(x, SECOND, second)
        final = rng.at(103)
        if final.uniform("order")[0] < 0.5:
            x = _sharpened(_resized(x, (height, width), final), final)
            return to_8_bit(_compressed(x, SECOND, final))
        x = _compressed(x, SECOND, final)
        return to_8_bit(_sharpened(_resized(x, (height, width), final), final))


def random_kernel(order: Order, rng: BatchRng) -> np.ndarray:
    """Draw a blur kernel of odd side 7 to 21."""
    size = 7 + 2 * int(rng.integers("kernel size", 8)[0])
    if rng.uniform("sinc")[0] < SINC_SHARE:
        low = np.pi / 3 if size < 13 else np.pi / 5
        return sinc_kernel(size, rng.uniform("cutoff", low, np.pi)[0])
    kind = _KERNELS[int(np.searchsorted(np.cumsum(_KERNEL_SHARES), rng.uniform("kernel kind")[0], side="right"))]
    first, second = rng.uniform("sigma", *order.sigma, count=2)[0]
    angle = rng.uniform("angle", -np.pi, np.pi)[0]
    across = second if kind.endswith("aniso") else None
    spread = rng.uniform("beta half")[0] < 0.5
    if kind.startswith("generalised"):
        beta = rng.uniform("beta", 0.5, 1.0)[0] if spread else rng.uniform("beta", 1.0, 4.0)[0]
        return generalised_kernel(size, first, across, angle, beta)
    if kind.startswith("plateau"):
        beta = rng.uniform("beta", 0.5, 1.0)[0] if spread else rng.uniform("beta", 1.0, 2.0)[0]
        return plateau_kernel(size, first, across, angle, beta)
    return gaussian_kernel(size, first, across, angle)


def _blurred(image: np.ndarray, order: Order, rng: BatchRng) -> np.ndarray:
    if rng.uniform("blur")[0] >= order.blur_share:
        return image
    return filter_image(image, random_kernel(order, rng))


def _sharpened(image: np.ndarray, rng: BatchRng) -> np.ndarray:
    """Apply the final sinc filter, which leaves over- and undershoot at edges."""
    if rng.uniform("final sinc")[0] >= FINAL_SINC_SHARE:
        return image
    size = 7 + 2 * int(rng.integers("final size", 8)[0])
    return filter_image(image, sinc_kernel(size, rng.uniform("final cutoff", np.pi / 3, np.pi)[0]))


def _random_size(shape: tuple[int, ...], order: Order, rng: BatchRng) -> tuple[int, int]:
    draw = rng.uniform("resize")[0]
    up, down, _ = order.resize
    factor = 1.0
    if draw < up:
        factor = rng.uniform("factor", 1.0, order.factor[1])[0]
    elif draw < up + down:
        factor = rng.uniform("factor", order.factor[0], 1.0)[0]
    height, width = (max(round(side * factor), 1) for side in shape[:2])
    return height, width


def _resized(image: np.ndarray, size: tuple[int, int], rng: BatchRng) -> np.ndarray:
    mode = _MODES[int(rng.integers("mode", 3)[0])]
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return interpolate(planes, size=size, mode=mode)[0].permute(1, 2, 0).numpy()


def _noisy(image: np.ndarray, order: Order, rng: BatchRng) -> np.ndarray:
    """Add Gaussian or Poisson noise, the same in all channels in two of five images."""
    grey = rng.uniform("grey noise")[0] < GREY_SHARE
    shape = (*image.shape[:2], 1) if grey else image.shape
    normal = rng.normal("noise", int(np.prod(shape)))[0].reshape(shape).astype(np.float32)
    if rng.uniform("noise kind")[0] < GAUSSIAN_SHARE:
        return image + np.float32(rng.uniform("sigma noise", *order.noise)[0]) * normal
    # Poisson noise of this many photons has nearly this Gaussian distribution, which needs a fixed number of draws.
    source = np.clip(image.mean(2, keepdims=True) if grey else image, 0, 255) / 255
    levels = 2.0 ** np.ceil(np.log2(max(len(np.unique(np.round(source * 255))), 2)))
    return image + 255 * np.float32(rng.uniform("poisson", *order.poisson)[0]) * np.sqrt(source / levels) * normal


def _compressed(image: np.ndarray, order: Order, rng: BatchRng) -> np.ndarray:
    return compress(image, round(float(rng.uniform("quality", *order.quality)[0])))
