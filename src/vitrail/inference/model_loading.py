"""Model loading for inference: resolve the source, move to the device, evaluation mode, class names."""

import json
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.edits.lora import merge_lora
from vitrail.errors import VitrailError, nearest, unknown
from vitrail.export.runtime import is_exported, open_exported
from vitrail.models import catalogue
from vitrail.models import task_of as published_task
from vitrail.parts.model import Model
from vitrail.tasks import DEFAULT, task_name
from vitrail.text.reading import read_vocabulary
from vitrail.text.vocabulary import Vocabulary
from vitrail.weights.folder import is_model_folder, load_model, model_folder
from vitrail.weights.from_checkpoint import from_checkpoint

ModelSource = nn.Module | str | PathLike[str]
"""A model, a model folder, a run folder, a name in the catalogue, or `hf:org/name@revision`."""


def find_model(
    source: ModelSource, weights: str | PathLike[str] | None = None, device: str = "auto", headless: bool = False
) -> Model:
    """Return the model of a source, on a device.

    Args:
        source: a model; a model folder; a run folder (its best weights, else the last ones); a file that
            `vitrail export` wrote; or a name in the catalogue, which requires `weights`.
        weights: a checkpoint for a name in the catalogue.
        device: `auto` does not move a model, and loads a model from disk onto a GPU if there is one.
        headless: allow checkpoints without a head, whose features are used.

    Raises:
        VitrailError: there is no such source, or the model would have random weights.
    """
    if isinstance(source, nn.Module):
        model: Any = source
        return model if device == "auto" else model.to(device)
    place = pick_device(device)
    text = str(source)
    if is_exported(text):
        if weights is not None:
            raise VitrailError(f"{text} has its own weights: leave --weights out.")
        return open_exported(text)
    if text in catalogue() and not Path(text).exists():
        if weights is None:
            raise VitrailError(
                f"{text} is a name without weights, and its random ones would only guess.\n"
                "Give its weights (--weights FILE, folder or hub id), or the folder of a trained model."
            )
        return _filled(text, str(weights), headless).to(place).eval()
    if weights is not None:
        raise VitrailError(
            f"{text} is not a name in the catalogue, and a folder has its own weights: leave --weights out."
        )
    if _is_foreign(Path(text)):
        return _filled(None, text, headless).to(place).eval()
    if not Path(text).exists() and not text.startswith("hf:") and nearest(text, catalogue()):
        raise unknown("model", text, catalogue(), hint="A trained model is a folder, and there is none of this name.")
    return merge_lora(load_model(model_folder(text), place))


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder is one of Hugging Face's: a config that states its architecture, and no manifest."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "model_type" in config and not is_model_folder(folder)


def _filled(name: str | None, weights: str, headless: bool) -> Any:
    """Return the model of a checkpoint, with its sizes and vocabulary; raises without a head."""
    model = from_checkpoint(weights, name).model
    model.task = model.task or published_task(model.variant)
    if model.inputs is None and model.inputs_type is Vocabulary:
        place = Path(weights)
        with suppress(VitrailError):  # a task that needs one states that it is missing
            model.inputs = read_vocabulary(place if place.is_dir() else place.parent)
    if getattr(model.config, "num_classes", None) == 0 and not headless:
        raise VitrailError(
            f"{weights} has no head, so it has no answers. Train one: vitrail train DATA --model {name} --weights ..."
        )
    return model


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one.

    Raises:
        VitrailError: there is no such device here.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        reason = "there is no device of this name" if first.startswith("Expected one of") else first
        hint = " A GPU of NVIDIA or AMD is called cuda." if name.lower().startswith("gpu") else ""
        raise VitrailError(
            f"Cannot use the device '{name}': {reason}.\nUse auto, cpu, cuda or cuda:1.{hint}"
        ) from error


def task_of(model: Model) -> str:
    """Return the name of a model's task; a plain module is a classifier.

    Example:
        >>> task_of(nn.Linear(1, 1))
        'classify'
    """
    return task_name(getattr(model, "task", "") or DEFAULT)
