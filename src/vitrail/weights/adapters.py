"""Files of LoRA adapters: the trained tensors alone, with the digest of the weights that they belong to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from vitrail.atomic_io import replace_folder, write_file
from vitrail.edits.lora import adapters
from vitrail.errors import DataError, VitrailError
from vitrail.parts.model import Model
from vitrail.weights.folder import CONFIG, build_described, described_config, read_json
from vitrail.weights.load import Source, load_weights
from vitrail.weights.manifest import dump_json

ADAPTERS, ABOUT = "adapters.safetensors", "adapters.json"


def is_adapter_folder(folder: str | Path) -> bool:
    """Return whether a folder looks like one of `save_adapters`.

    Example:
        >>> is_adapter_folder("no/such/folder")
        False
    """
    return (Path(folder) / ADAPTERS).is_file() and (Path(folder) / ABOUT).is_file()


def save_adapters(model: Model, folder: str | Path) -> Path:
    """Write adapters and head of a model, its config, and the digest of its frozen weights.

    Raises:
        VitrailError: the model has no adapters.
    """
    if not adapters(model):
        raise VitrailError(f"{model.variant} has no adapters. Train some: vitrail train DATA --weights W --lora 8")
    config, inputs = described_config(model)
    own = {name: value.cpu().contiguous() for name, value in model.state_dict().items() if name not in _base(model)}
    with replace_folder(folder) as new:
        write_file(new / CONFIG, dump_json(config))
        write_file(new / ABOUT, dump_json({"base_sha256": base_digest(model), "tensors": sorted(own)}))
        write_file(new / ADAPTERS, save(own, metadata={"format": "pt"}))
        if inputs is not None:
            write_file(new / inputs.file, inputs.to_text().encode())
    return Path(folder)


def load_adapters(folder: str | Path, base: Source) -> Model:
    """Return the model of an adapter folder on its base weights, in evaluation mode.

    Args:
        folder: folder of `save_adapters`.
        base: the checkpoint that the adapters were trained on.

    Raises:
        DataError: the folder is damaged.
        VitrailError: the base weights are not those of the training.
    """
    folder = Path(folder)
    config, about = read_json(folder / CONFIG), read_json(folder / ABOUT)
    others = [edit for edit in config.get("edits", []) if edit.get("edit") != "lora"]
    plain = build_described(folder, {**config, "edits": others})
    load_weights(plain, base)
    model = build_described(folder, config)
    state = model.state_dict()
    source = plain.state_dict()
    for name, origin in _base(model).items():
        state[name] = source[origin]
    try:
        own = load((folder / ADAPTERS).read_bytes())
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise DataError(f"{folder / ADAPTERS} cannot be read: {error}.") from error
    if sorted(own) != about.get("tensors") or any(name not in state for name in own):
        raise DataError(f"{folder / ADAPTERS} does not hold the tensors that {ABOUT} states: copy the folder again.")
    model.load_state_dict({**state, **own})
    if base_digest(model) != about.get("base_sha256"):
        raise VitrailError(
            f"{base} is not what the adapters in {folder} were trained on (its weights have another digest).\n"
            "Give the checkpoint that --weights of the training named."
        )
    return model.eval()


def base_digest(model: Model) -> str:
    """Return the sha256 of the frozen weights: names as without adapters, shapes and bytes; the head is not in it."""
    digest, state = hashlib.sha256(), model.state_dict()
    for name, origin in sorted(_base(model).items(), key=lambda pair: pair[1]):
        value: Tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{origin} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


def _base(model: Model) -> dict[str, str]:
    """Return the frozen tensors of a model by name, with their names without adapters."""
    layers = adapters(model)
    trained = {f"{layer}.{part}" for layer in layers for part in "ab"}
    names = [name for name in model.state_dict() if name not in trained and not name.startswith("head.")]
    return {name: _origin(name, layers) for name in names}


def _origin(name: str, layers: dict[str, Any]) -> str:
    owner, _, last = name.rpartition(".")
    parent = owner.removesuffix(".base")
    return f"{parent}.{last}" if parent in layers else name
