"""Image preprocessing of a model.

The same weights give another top-1 under another crop (DeiT-B-distilled at 384 is published as 85.22, 85.43 and 85.55),
so each variant carries its own evaluation protocol. This file only defines it; `data/` applies it. It is saved as
`preprocessor_config.json`, in the fields that Hugging Face's processors read.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from vitrail.errors import DataError
from vitrail.inputs import ModelInputs

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

# Numbers of Pillow's filters, which Hugging Face stores as `resample`.
_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


@dataclass(frozen=True)
class Preprocess(ModelInputs):
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

    file: ClassVar[str] = "preprocessor_config.json"

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

    def to_text(self) -> str:
        """Return the content of `preprocessor_config.json`."""
        return json.dumps(to_processor(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str) -> "Preprocess":
        """Read the content of a `preprocessor_config.json`."""
        try:
            fields = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{cls.file} is not JSON: {error}.") from error
        if not isinstance(fields, dict):
            raise DataError(f"{cls.file} holds a {type(fields).__name__}; an object is needed.")
        return from_processor(fields)

    def facts(self) -> dict[str, str]:
        """Return size and normalisation for the model card."""
        return {
            "input": f"{self.size} x {self.size}: short side to {self.resize} ({self.interpolation}), then the centre",
            "mean, std": f"{tuple(self.mean)}, {tuple(self.std)}",
        }


def to_processor(preprocess: Preprocess) -> dict[str, Any]:
    """Return this protocol as fields of transformers' `BitImageProcessor` (resize the short side, crop the centre).

    It cuts an odd border one pixel further left or up than we do.
    """
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preprocess.resize},
        "resample": _FILTERS[preprocess.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "crop_pct": preprocess.crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_convert_rgb": preprocess.channels == 3,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def from_processor(fields: dict[str, Any]) -> Preprocess:
    """Read a protocol from such fields: ours, or those of a folder that Hugging Face wrote.

    A processor that resizes straight to a square (ViT's) has no crop: the share is then 1.

    Raises:
        DataError: a field is missing or has a value that `Preprocess` does not support.

    Example:
        >>> from_processor(to_processor(Preprocess(size=384, crop=1.0))).size
        384
    """
    try:
        resize = _edge(fields["size"])
        side = _edge(fields["crop_size"]) if fields.get("do_center_crop") else resize
        names = {number: name for name, number in _FILTERS.items()}
        return Preprocess(
            size=side,
            crop=fields.get("crop_pct") or side / resize,
            interpolation=names[fields.get("resample", 3)],
            mean=tuple(float(value) for value in fields["image_mean"]),
            std=tuple(float(value) for value in fields["image_std"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"preprocessor_config.json cannot be read: {type(error).__name__} {error}.\n"
            "It needs size, image_mean, image_std, and resample 0, 2 or 3."
        ) from error


def _edge(size: int | dict[str, int]) -> int:
    """Return one side in pixels from Hugging Face's three forms of a size."""
    if isinstance(size, dict):
        size = size["shortest_edge"] if "shortest_edge" in size else size["height"]
    return int(size)
