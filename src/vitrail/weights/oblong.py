"""Checkpoints of oblong images: sizes that a config states, and position tables that belong to no square grid."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor


def oblong_size(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """Return the oblong size of a checkpoint in words, or None if its images are square as far as it shows.

    Args:
        config: the `config.json` of transformers or timm, empty if there is none.
        tensors: the tensors, under our names.

    Example:
        >>> oblong_size({"model_args": {"img_size": [32, 64]}}, {})
        '32 x 64'
        >>> oblong_size({"image_size": 224}, {}) is None
        True
    """
    args, published = config.get("model_args"), config.get("pretrained_cfg")
    size = published.get("input_size") if isinstance(published, dict) else None
    stated = [config.get("image_size"), args.get("img_size") if isinstance(args, dict) else None]
    stated.append(size[1:] if isinstance(size, list | tuple) else None)
    for sides in stated:
        if isinstance(sides, list | tuple) and len(sides) == 2 and sides[0] != sides[1]:
            return f"{sides[0]} x {sides[1]}"
    return _table(tensors)


def _table(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the rows of a position table of an embedding that fits no square grid."""
    prefix = next((value.shape[1] for key, value in tensors.items() if key.endswith(".tokens") and value.ndim == 3), 0)
    for key, value in tensors.items():
        if key.startswith("backbone.embedding.") and key.endswith(".table") and value.ndim == 3:
            rows = value.shape[1]
            if not any(isqrt(cells) ** 2 == cells for cells in (rows, max(rows - prefix, 0))):
                return f"a position table of {rows} rows"
    return None
