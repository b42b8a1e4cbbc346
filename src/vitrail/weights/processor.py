"""`preprocessor_config.json`: the evaluation protocol, in the fields that Hugging Face's processors read."""

from typing import Any

from vitrail.errors import DataError
from vitrail.preprocess import Preprocess

# Numbers of Pillow's filters, which Hugging Face stores as `resample`.
_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


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
