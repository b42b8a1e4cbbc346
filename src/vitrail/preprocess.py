"""Image preprocessing of a model.

The same weights give another top-1 under another crop (DeiT-B-distilled at 384 is published as 85.22, 85.43 and 85.55),
so each variant carries its own evaluation protocol. This file only defines it; `data/` applies it.
"""

from dataclasses import asdict, dataclass
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side to `round_down(size / crop)`, crop `size x size` from the centre, scale to 0..1, normalise.

    Args:
        size: side of the square that the model is evaluated at, in pixels.
        crop: share of the resized short side that the crop keeps, in (0, 1].
        interpolation: `bicubic`, `bilinear` or `nearest`.
        mean: value subtracted from each channel after scaling to 0..1.
        std: value each channel is divided by.

    Example:
        >>> Preprocess(size=224, crop=0.9).resize
        248
    """

    size: int = 224
    crop: float = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def resize(self) -> int:
        """Length of the short side before the crop, in pixels."""
        return int(self.size / self.crop)

    @property
    def channels(self) -> int:
        """Number of channels that the statistics are given for."""
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Restore from the values of `to_dict`."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})
