"""A model as metadata, and back as a shell: every attribute of the model, and no weights."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitrail.errors import DataError
from vitrail.parts.model import Model
from vitrail.tasks.program import ProgramSpec
from vitrail.weights.folder import build_described, described_config


def describe(model: Model) -> dict[str, Any]:
    """Return the metadata of a model for a file, as plain values.

    Example:
        >>> from vitrail.models import create_model
        >>> describe(create_model("vit_tiny_patch16_224", depth=1, num_classes=2))["task"]
        'classify'
    """
    config, inputs = described_config(model)
    labels = model.metadata.get("labels")
    preprocess: Any = getattr(model, "preprocess", None)
    return {
        "format": 1,
        "task": model.task,
        "variant": model.variant,
        "labels": None if labels is None else list(labels),
        "preprocess": preprocess.to_dict() if hasattr(preprocess, "to_dict") else None,
        "config": config,
        "tables": {name: getattr(model, name).tolist() for name in model.described},
        "model_inputs": None if inputs is None else {"file": inputs.file, "text": inputs.to_text()},
    }


def shell_of(description: dict[str, Any], program_of: Callable[[Model], ProgramSpec]) -> tuple[Model, ProgramSpec]:
    """Build the described model without parameters and buffers, in evaluation mode, and describe its program.

    Args:
        description: what the file states.
        program_of: describes the program of a model; it may run the model on shapes alone.

    Raises:
        DataError: the description is of another version.
        VitrailError: its architecture is not known here.
    """
    config, inputs = description.get("config"), description.get("model_inputs")
    if description.get("format") != 1 or not isinstance(config, dict):
        raise DataError("The file was written by another version of Vitrail. Export the model again.")
    with tempfile.TemporaryDirectory() as name, torch.device("meta"):
        folder = Path(name)
        if inputs is not None:
            (folder / Path(inputs["file"]).name).write_text(inputs["text"], encoding="utf-8")
        shell = build_described(folder, config).eval()
        program = program_of(shell)
    for module in shell.modules():
        module._parameters = dict.fromkeys(module._parameters)
        module._buffers = dict.fromkeys(module._buffers)
    for name, values in (description.get("tables") or {}).items():
        setattr(shell, name, torch.tensor(values))
    return shell, program
