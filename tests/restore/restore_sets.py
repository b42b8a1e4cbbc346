"""Small image sets, and configs of small runs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.training.config import RunConfig, config_class

SMALL = {"model": "swinir_light_x2", "set": ("dim=8", "depths=2,", "num_heads=2", "window_size=4", "drop_path=0.0")}


def photo(seed: int, height: int = 40, width: int = 36) -> Image.Image:
    """A smooth colourful image."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def make_set(root: Path, count: int = 6, split: tuple[str, ...] = ("train", "val")) -> Path:
    """A folder of splits."""
    for number, name in enumerate(split):
        (root / name).mkdir(parents=True)
        for i in range(count):
            photo(10 * number + i).save(root / name / f"{i}.png")
    return root


def make_config(data: Path, out: Path, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {"data": str(data), "epochs": 2, "batch": 4, "patch": 8, "patches": 2, "threads": 1}
    usual |= {"precision": "fp32", "save_seconds": 0, "lr": 5e-3, **SMALL, "out": str(out)}
    return config_class("restore")(**{**usual, **changes})
