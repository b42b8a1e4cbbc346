"""Write a folder for transformers: its `config.json`, its processor, and tensors with its key names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.atomic_io import replace_folder, write_file
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess
from vitrail.weights.folder import CONFIG, TENSORS, write_tensors
from vitrail.weights.keymap import Format
from vitrail.weights.manifest import dump_json


def write_huggingface_folder(folder: Path, form: Format, tensors: Mapping[str, Tensor], model: Model) -> None:
    """Write a folder for `AutoModelForImageClassification` and `AutoImageProcessor` atomically.

    Args:
        folder: the output folder; an earlier folder of this kind is replaced.
        form: the format of the tensors.
        tensors: the tensors with transformers' key names.
        model: their model; its `labels` and `preprocess` are written too.

    Raises:
        VitrailError: the folder holds other files.
    """
    if folder.is_dir() and not {CONFIG, TENSORS, Preprocess.file}.issuperset(os.listdir(folder)):
        raise VitrailError(f"{folder} holds other files, and writing replaces the whole folder. Choose a new one.")
    assert form.describe is not None
    # transformers keeps unknown fields; the name lets `convert` find the variant again.
    config = {**form.describe(model.config), **_labels(model), "variant": model.variant}
    with replace_folder(folder) as new:
        write_file(new / CONFIG, dump_json(config))
        write_file(new / Preprocess.file, model.preprocess.to_text().encode())
        write_tensors(new / TENSORS, {key: value.detach().cpu().contiguous() for key, value in tensors.items()})


def _labels(model: Model) -> dict[str, Any]:
    """Return the names of the classes in both directions; transformers counts the classes by them."""
    count = model.config.num_classes
    names = getattr(model, "labels", None) or [f"LABEL_{number}" for number in range(count)]
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
