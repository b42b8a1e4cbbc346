"""Default model of a run that names none, by machine and data; advice before a training from random weights."""

from math import ceil
from typing import Any, NamedTuple

from vitrail.data.datasets import Splits
from vitrail.models import make_config
from vitrail.models.published import PUBLISHED

FEW = 20_000
"""Images below which a model from random weights stays far behind a fine-tuned one."""
_PER_CORE, _PER_GPU = 4e10, 3e13  # rough sustained FLOP per second of a training
_PATIENCE = 3600.0  # seconds that a default training may take on a CPU


class StartingModel(NamedTuple):
    """A model, and the reason for the log."""

    model: str
    note: str


def default_model(splits: Splits, device: str, fine_tune: bool) -> StartingModel:
    """Choose a model that finishes on this machine.

    Args:
        splits: the data set.
        device: type of the device: `cpu` or `cuda`.
        fine_tune: whether public weights are loaded.

    Example:
        >>> from vitrail.data.datasets import open_dataset
        >>> default_model(open_dataset("digits"), "cpu", fine_tune=False).model
        'cct_7_3x1_32'
    """
    train = splits.require("train")
    small = train.pixels is not None and max(train.pixels.shape[-2:]) <= 64
    if fine_tune:
        model = "vit_tiny_patch16_224" if device == "cpu" else "swin_tiny_patch4_window7_224"
    elif small:
        model = "cct_7_3x1_32"
    else:
        model = "pvt_v2_b0" if device == "cpu" else "swin_tiny_patch4_window7_224"
    where = "a CPU" if device == "cpu" else "a GPU"
    size = "small images" if small else "images"
    return StartingModel(model, f"Model: {model}, for {len(train):,} {size} on {where}; --model chooses another.")


def advice(splits: Splits, config: Any, device: str, cores: float) -> list[str]:
    """Return what is realistic for a training from random weights on few images.

    Args:
        splits: the data set.
        config: the run, with its model and epochs.
        device: type of the device.
        cores: processor cores of this process.
    """
    train, notes = splits.require("train"), []
    seconds = estimate(config, len(train), device, cores)
    side, patch = getattr(config, "imgsz", None), _patch(config)
    if side and patch and side % patch:
        notes.append(f"note: --imgsz {side} is no multiple of the patch of {patch}: images get a border of zeros.")
    if config.freeze == "backbone" and not config.unfreeze and config.augment != "none" and config.cache_features:
        notes.append(
            "note: the backbone is frozen. With --augment none its features are computed once, and an epoch takes "
            "moments; the images are then not varied."
        )
    if config.weights is not None or len(train) >= FEW or train.pixels is not None:
        few = False
    else:
        few = True
        each = len(train) // max(len(splits.classes), 1)
        notes.append(
            f"warning: {len(train):,} images ({each:,} a class) are few for random weights: expect accuracy far below "
            "that of fine-tuning, which takes a few epochs: --weights pretrained (public weights), or --weights FILE."
        )
    if seconds is not None and seconds > _PATIENCE and config.minutes is None:
        faster = " --imgsz 128 or a smaller --model is faster," if few or device == "cpu" else ""
        notes.append(
            f"warning: {config.epochs} epochs of {config.model} take roughly {_hours(seconds)} here:{faster} "
            "--minutes 30 ends in time; --dry-run measures."
        )
    return notes


def _patch(config: Any) -> int | None:
    """Return the side of the patches of a model, if it has patches of one size."""
    size = config.model_overrides().get("patch_size") or getattr(make_config(config.model), "patch_size", None)
    return size if isinstance(size, int) else None


def estimate(config: Any, samples: int, device: str, cores: float) -> float | None:
    """Return the seconds of a run, to a factor of two or three; None if the cost of the model is unknown.

    A training step costs three forward passes of two FLOP a multiply-add.
    """
    known = PUBLISHED.get(config.model)
    if known is None or known.pixels is None or config.epochs is None or config.set:
        return None
    side = getattr(config, "imgsz", None) or known.pixels
    work = 6 * known.multiply_adds * (side / known.pixels) ** 2 * samples * config.epochs
    return work / (_PER_CORE * cores if device == "cpu" else _PER_GPU)


def _hours(seconds: float) -> str:
    return f"{ceil(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
