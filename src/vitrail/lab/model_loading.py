"""A model that is ready to be asked: found, on its device, in evaluation mode, with names for its classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.errors import DataError, VitrailError, nearest, unknown
from vitrail.explain.blocks import evaluating
from vitrail.models import catalogue
from vitrail.weights.folder import is_model_folder, load_model
from vitrail.weights.from_checkpoint import from_checkpoint

ModelSource = nn.Module | str | PathLike[str]
"""A model, a model folder, a run folder, a name in the catalogue, or `hf:org/name@revision`."""

BEST, LAST = Path("weights/best"), Path("weights/last")


def find_model(source: ModelSource, weights: str | PathLike[str] | None = None, device: str = "auto") -> Any:
    """Return the model that a source means, on a device.

    Args:
        source: a model as it is; a model folder; a run folder, whose best weights are taken (else the last ones); or a
            name in the catalogue, which needs `weights`.
        weights: a checkpoint for a name in the catalogue.
        device: `auto` leaves a model where it is and puts a loaded one on a GPU where there is one.

    Raises:
        VitrailError: nothing like that is there, or random weights would be asked.
    """
    if isinstance(source, nn.Module):
        return source if device == "auto" else source.to(device)
    place = pick_device(device)
    text = str(source)
    if text in catalogue() and not Path(text).exists():
        if weights is None:
            raise VitrailError(
                f"{text} is a name without weights, and its random ones would only guess.\n"
                "Give its weights (--weights FILE, folder or hub id), or the folder of a trained model."
            )
        return _filled(text, str(weights)).to(place).eval()
    if weights is not None:
        raise VitrailError(
            f"{text} is not a name in the catalogue, and a folder has its own weights: leave --weights out."
        )
    if not Path(text).exists() and not text.startswith("hf:") and nearest(text, catalogue()):
        raise unknown("model", text, catalogue(), hint="A trained model is a folder, and there is none of this name.")
    return load_model(model_folder(text), place)


def _filled(name: str, weights: str) -> Any:
    """Return the model that a checkpoint is of, with its own classes and sizes; one without classes is refused."""
    model = from_checkpoint(weights, name).model
    if model.config.num_classes == 0:
        raise VitrailError(
            f"{weights} has no head, so it has no answers. Train one: vitrail train DATA --model {name} --weights ..."
        )
    return model


def model_folder(source: str) -> str:
    """Return the model folder in a run folder; every other source stays as it is."""
    folder = Path(source)
    for place in (BEST, LAST):
        if not is_model_folder(folder) and is_model_folder(folder / place):
            return str(folder / place)
    return source


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` is a GPU where there is one.

    Raises:
        VitrailError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise VitrailError(f"Cannot use the device '{name}': {reason}\nUse auto, cpu or cuda.") from error


@contextmanager
def inference_mode_for(model: nn.Module) -> Iterator[torch.device]:
    """Put a model in evaluation mode, without gradients, inside the block, and give the device it lives on.

    Afterwards each module is in the mode it was in, so a training that looks at its own model goes on unchanged.
    """
    first = next(model.parameters(), None)
    with evaluating(model), torch.inference_mode():
        yield torch.device("cpu") if first is None else first.device


def class_names(
    model: nn.Module, classes: int, given: Sequence[str] | str | PathLike[str] | None = None
) -> tuple[str, ...]:
    """Return a name for each class of a model.

    In this order: those that are given, those that the model carries, ImageNet's for 1000 classes without names (the
    published checkpoints have none inside), and plain numbers.

    Args:
        model: the model.
        classes: number of its classes.
        given: names, or a text file with one a line.

    Raises:
        VitrailError: the number of names is not the number of classes.
    """
    names = read_names(given) if isinstance(given, str | PathLike) else given
    if names is None:
        names = getattr(model, "labels", None)
    if names is None:
        return _imagenet() if classes == 1000 else tuple(f"class {i}" for i in range(classes))
    if len(names) != classes:
        raise VitrailError(
            f"Got {len(names)} class names for a model of {classes} classes. Give one a class, in order."
        )
    return tuple(names)


def _imagenet() -> tuple[str, ...]:
    """Return the names that torchvision gives ImageNet's classes, in index order."""
    weights = import_module("torchvision.models").get_weight("ViT_B_16_Weights.IMAGENET1K_V1")
    return tuple(weights.meta["categories"])


def read_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Read class names from a text file with one a line.

    Raises:
        VitrailError: there is no such file.
        DataError: it is not text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise VitrailError(f"There is no file of class names at {path}. It holds one name a line.") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"{path} is not a text file in UTF-8: class names stand there one a line.") from error
    return tuple(line.strip() for line in (lines[:-1] if lines[-1] == "" else lines))
