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
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


@dataclass(frozen=True)
class Preprocess(ModelInputs):
    """Resize the short side to `round_down(size / crop)`, crop `size x size` from the centre, scale to 0..1, normalise.

    Args:
        size: side of the square that the model is evaluated at, in pixels.
        crop: share of the resized short side that the crop keeps, in (0, 1].
        interpolation: `bicubic`, `bilinear`, `nearest`, `lanczos`, `box` or `hamming`.
        mean: value subtracted from each channel after scaling to 0..1.
        std: value each channel is divided by.
        crop_mode: `center` keeps the ratio of the sides, `squash` resizes both sides to the same length (timm's names).

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
    crop_mode: str = "center"

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
        values = asdict(self)
        return values if self.crop_mode != "center" else {k: v for k, v in values.items() if k != "crop_mode"}

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

    def resizing(self) -> str:
        """Return the resizing in words."""
        sides = "short side" if self.crop_mode == "center" else "both sides"
        return f"{sides} to {self.resize} ({self.interpolation})"

    def facts(self) -> dict[str, str]:
        """Return size and normalisation for the model card."""
        return {
            "input": f"{self.size} x {self.size}: {self.resizing()}, then the centre",
            "mean, std": f"{tuple(self.mean)}, {tuple(self.std)}",
        }


def to_processor(preprocess: Preprocess) -> dict[str, Any]:
    """Return this protocol as fields of a processor of transformers.

    `BitImageProcessor` resizes the short side and crops the centre, `DeiTImageProcessor` resizes both sides. They cut
    an odd border one pixel further left or up than we do.

    Example:
        >>> to_processor(Preprocess(size=224, crop=0.9))["size"]
        {'shortest_edge': 248}
    """
    side = preprocess.resize
    squash = preprocess.crop_mode == "squash"
    return {
        "image_processor_type": "DeiTImageProcessor" if squash else "BitImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side} if squash else {"shortest_edge": side},
        "resample": FILTERS[preprocess.interpolation],
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

    A size of height and width resizes both sides, a short edge keeps the ratio. Rescaling by r and statistics m, s are
    those of pixels in 0..1: ((255 r) x - m) / s = (x - m / 255 r) / (s / 255 r).

    Raises:
        DataError: a field is missing or has a value that `Preprocess` does not support; the message names it.

    Example:
        >>> from_processor(to_processor(Preprocess(size=384, crop=1.0))).size
        384
        >>> from_processor({"size": 224, "do_rescale": False, "do_normalize": False}).std
        (0.00392156862745098, 0.00392156862745098, 0.00392156862745098)
    """
    _refuse_unsupported(fields)
    try:
        size, crop, squash = _geometry(fields)
        unit = 255 * float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 255.0
        normal = fields.get("do_normalize", True)
        mean = [float(value) / unit for value in fields["image_mean"]] if normal else [0.0, 0.0, 0.0]
        std = [float(value) / unit for value in fields["image_std"]] if normal else [1 / unit] * 3
        names = {number: name for name, number in FILTERS.items()}
        return Preprocess(
            size=size,
            crop=crop,
            interpolation=names[fields.get("resample", 3)],
            mean=tuple(mean),
            std=tuple(std),
            crop_mode="squash" if squash else "center",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"preprocessor_config.json cannot be read: {type(error).__name__} {error}.\n"
            "It needs size, image_mean, image_std, and resample 0 to 5."
        ) from error


_FIXED: dict[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "do_pad": (False, None),
    "do_color_quantize": (False, None),
    "do_thumbnail": (False, None),
    "do_align_long_axis": (False, None),
    "do_reduce_labels": (False, None),
    "do_flip_channel_order": (False, None),
    "do_rescale_offset": (False, None),
    "rescale_offset": (False, None),
    "offset": (False, None),
}
"""Fields of processors that change the pixels in a way that is not supported, with the values that do not."""


def _refuse_unsupported(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        unknown_step = name.startswith("do_") and name not in _KNOWN_STEPS and value
        if unknown_step or value not in _FIXED.get(name, (value,)):
            raise DataError(
                f"preprocessor_config.json has {name}={value}, which is not supported: the pixels would be others.\n"
                "Prepare the images with its own library, or remove the file to take the protocol of the variant."
            )


_KNOWN_STEPS = {*_FIXED, "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"}


_SQUARE = ("ViT", "DeiT", "Beit", "Pvt", "ImageGPT", "Siglip")
"""Beginnings of the names of processors that read a number as height and width; the others as the short side."""


def _geometry(fields: dict[str, Any]) -> tuple[int, float, bool]:
    """Return size, crop share and whether both sides are resized."""
    size, kind = fields["size"], str(fields.get("image_processor_type") or fields.get("feature_extractor_type") or "")
    squash = "shortest_edge" not in size if isinstance(size, dict) else kind.startswith(_SQUARE)
    side = _edge(size)
    if kind.startswith("ConvNext"):  # below 384 pixels the short side is enlarged and the centre cropped, else squashed
        return (side, 1.0, True) if side >= 384 else (side, float(fields.get("crop_pct") or 224 / 256), False)
    if kind.startswith("Perceiver"):  # crops a share of the image first, then resizes it
        return side, side / _edge(fields["crop_size"]) if fields.get("do_center_crop") else 1.0, False
    if not fields.get("do_center_crop"):
        return side, 1.0, squash
    crop = _edge(fields["crop_size"])
    return crop, fields.get("crop_pct") or crop / side, squash


def _edge(size: int | dict[str, int]) -> int:
    """Return one side in pixels from Hugging Face's three forms of a size."""
    if isinstance(size, dict):
        if "shortest_edge" in size and size.get("longest_edge") is None:
            return int(size["shortest_edge"])
        if size["height"] != size["width"]:
            raise ValueError(f"size {size} is not square")
        return int(size["height"])
    return int(size)
