"""The model folder: weights, config, preprocessing, card and checksums of a model.

| file | holds |
|---|---|
| `config.json` | task, variant, family, config values, edits, metadata (class names); file of a custom architecture |
| `model.safetensors` | the tensors, under our key names |
| `preprocessor_config.json`, `tokenizer.json`, ... | the model's inputs (`ModelInputs`), if it has any |
| `README.md` | a model card |
| `manifest.json` | size and sha256 of each file, checksum of each tensor, versions, command |
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vitrail.atomic_io import full_disk, replace_folder, settle, write_file
from vitrail.edits.edit import edits_from_json, edits_to_json, replay
from vitrail.errors import DataError, VitrailError
from vitrail.inputs import ModelInputs, inputs_in
from vitrail.models import create_model, make_config
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.quantized_linear import stored_weights
from vitrail.weights.custom_architecture import need_own_file, own_file
from vitrail.weights.manifest import MANIFEST, dump_json, verify, write_manifest
from vitrail.weights.model_card import model_card

_STATED = ("metrics", "dataset", "license")
_FIELDS = ("format_version", "library_name", "task", "variant", "family", "architecture_file", "config", "edits")
_RESERVED = (*_FIELDS, "inputs", "preprocess", *_STATED)
CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"


def save_model(
    model: Model,
    folder: str | Path,
    *,
    inputs: ModelInputs | None = None,
    command: str | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str | None = None,
    **metadata: Any,
) -> Path:
    """Write a model folder atomically; an earlier model folder at that path is replaced.

    Arguments that are None are taken from the model, as set by `load_model`, so saving a loaded model again gives the
    same bytes. Metadata and inputs that are given become the model's own, so an exported file has the same class names.

    Args:
        model: a model from `create_model` or `load_model`.
        folder: where to write.
        inputs: preprocessing or vocabulary; by default the model's own.
        command: the command line that made the weights, for the manifest.
        metrics: measured figures for the card, by name.
        dataset: data that they were measured on.
        license: the licence of the weights, as the hub spells it; "unknown" unless given.
        metadata: plain values of the model's task, such as `labels`, the class names in the order of the logits.

    Raises:
        VitrailError: the place holds something that is not a model folder, metadata does not fit, or the model has
            parts that its config does not describe, so it could not be built again.
        ResourceError: the disk is full; earlier contents are untouched.

    Example:
        >>> import tempfile
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, num_classes=2)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     load_model(save_model(model, f"{place}/model", labels=["ant", "bee"])).labels
        ('ant', 'bee')
    """
    folder = Path(folder)
    check_replaceable(folder)
    about = _about(model)
    about["metadata"] |= {key: value for key, value in metadata.items() if value is not None}
    given = {"inputs": inputs, "command": command, "metrics": metrics, "dataset": dataset, "license": license}
    about |= {key: value for key, value in given.items() if value is not None}
    config = _config(model, about)
    kept: ModelInputs | None = _fitting(model, about["inputs"])
    _refuse_altered(model, config["config"], kept)
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(model.state_dict().items())}
    with replace_folder(folder) as new:
        write_file(new / CONFIG, dump_json(config))
        write_tensors(new / TENSORS, tensors)
        if kept is not None:
            write_file(new / kept.file, kept.to_text().encode())
        write_file(new / CARD, _card(model, about).encode())
        write_manifest(new, about["command"], kept and kept.file)
    given = {
        key: value for key, value in model.plain_metadata(about["metadata"]).items() if metadata.get(key) is not None
    }
    model.metadata = {**model.metadata, **{key: _tuples(value) for key, value in given.items()}}
    if inputs is not None:
        model.inputs = inputs
    return folder


def load_model(source: str | Path, device: str | torch.device = "cpu") -> Model:
    """Build the model that a model folder describes, in evaluation mode, after checking every checksum.

    Edits that the folder states (heads removed, blocks dropped) are replayed before its tensors are read. The model
    carries `task`, `metadata`, `inputs`, `metrics`, `dataset`, `license` and `command` as the folder states them.

    Args:
        source: a model folder, or `hf:org/name@revision` for one on the hub.
        device: device of the model.

    Raises:
        DataError: a file or a tensor is damaged (named in the message), or the folder is no model folder.
        VitrailError: nothing is there, or the folder states an edit that is not known.
    """
    folder = _find(source)
    manifest = verify(folder)
    config = read_json(folder / CONFIG)
    for key, kind in {"variant": str, "config": dict}.items():
        if not isinstance(config.get(key), kind):
            raise DataError(f"{folder / CONFIG} has no '{key}'; it was not written by vitrail.save_model.")
    model = build_described(folder, config)
    _fill(model, load_file(folder / TENSORS), folder)
    for key, value in {"command": manifest.get("command"), **{key: config.get(key) for key in _STATED}}.items():
        setattr(model, key, value)
    return model.to(device).eval()


def build_described(folder: Path, config: Mapping[str, Any]) -> Model:
    """Build the model that a folder's `config.json` describes, with inputs, task and metadata; its weights are random.

    Raises:
        VitrailError: its architecture or an edit is not known here.
        DataError: a file of the folder is damaged.
    """
    need_own_file(config["variant"], config.get("architecture_file"), folder)
    expected = inputs_in(make_config(config["variant"]))
    held: dict[str, Any] = {name: _read_inputs(folder, type(value)) for name, value in expected.items()}
    with torch.random.fork_rng(devices=[]):  # loading does not disturb the caller's random numbers
        model = create_model(config["variant"], **_tuples(config["config"]), **held)
        _replay(model, config.get("edits", []), folder / CONFIG)
    model.task = config.get("task") or model.task  # absent in folders of older versions
    model.metadata = {key: _tuples(value) for key, value in config.items() if key not in _RESERVED}
    for inputs in held.values():
        model.inputs = inputs  # the config's may have another size
    if not held and model.inputs_type is not None and (folder / model.inputs_type.file).is_file():
        model.inputs = _read_inputs(folder, model.inputs_type)
    return model


def described_config(model: Model) -> tuple[dict[str, Any], ModelInputs | None]:
    """Return the contents of `config.json` of a model, and the inputs that have a file of their own."""
    about = _about(model)
    return _config(model, about), _fitting(model, about["inputs"])


def is_model_folder(folder: str | Path) -> bool:
    """Return whether a folder looks like one of `save_model`.

    Example:
        >>> is_model_folder("/no/such/folder")
        False
    """
    return (Path(folder) / MANIFEST).is_file() and (Path(folder) / CONFIG).is_file()


def model_folder(source: str) -> str:
    """Return the model folder of a run folder; any other source is returned unchanged.

    Example:
        >>> model_folder("models/none")
        'models/none'
    """
    folder = Path(source)
    for place in ("weights/best", "weights/last"):
        if not is_model_folder(folder) and is_model_folder(folder / place):
            return str(folder / place)
    return source


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file; a full disk raises the error of `full_disk`."""
    path = Path(path)
    needed = sum(value.nbytes for value in tensors.values())
    with full_disk(path, needed):
        path.touch()
        rights = path.stat().st_mode  # safetensors makes a file that only its owner may read
        try:
            save_file(dict(tensors), path, metadata={"format": "pt"})
            path.chmod(rights)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), str(error), str(path)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise a `DataError` with the file and the fault."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} has no {path.name}, so it is not a whole model folder.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}; an object is needed.")
    return value


def _about(model: Model) -> dict[str, Any]:
    """Collect the metadata of a model."""
    if not getattr(model, "variant", ""):
        raise VitrailError(
            f"{type(model).__name__} has no variant and config, so a folder of it could not be loaded again.\n"
            "Make the model with vitrail.create_model."
        )
    about = {key: getattr(model, key, None) for key in ("inputs", "command", *_STATED)}
    if about["inputs"] is None:
        about["inputs"] = next(iter(inputs_in(model.config).values()), None)
    about["metadata"] = dict(model.metadata)
    return about


def _config(model: Model, about: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of `config.json`: plain values only."""
    values = asdict(model.config)
    for name in inputs_in(model.config):  # they have their own file
        values.pop(name)
    if "preprocess" in inputs_in(model.config):  # the size that the model was built for may be another
        values["image_size"] = model.config.preprocess.size
    metadata = model.plain_metadata(about["metadata"])
    if reserved := [key for key in metadata if key in _RESERVED]:
        raise VitrailError(f"Metadata of a model cannot be called {reserved[0]}: {CONFIG} has a field of this name.")
    file = own_file(model.variant)
    return {
        "format_version": 1,
        "library_name": "vitrail",
        "task": model.task,
        "variant": model.variant,
        "family": type(model.config).__module__.rpartition(".")[2],
        **({} if file is None else {"architecture_file": file}),
        "config": values,
        **({"edits": edits_to_json(model.edits)} if model.edits else {}),
        **metadata,
        "metrics": None if about["metrics"] is None else {key: float(value) for key, value in about["metrics"].items()},
        "dataset": about["dataset"],
        "license": about["license"],
    }


def _fitting(model: Model, inputs: ModelInputs | None) -> ModelInputs | None:
    """Check that `load_model` will know the type of a model's inputs."""
    held = [type(value) for value in inputs_in(model.config).values()] or [model.inputs_type]
    if inputs is not None and type(inputs) not in held:
        needed = " or ".join(kind.__name__ for kind in held if kind) or "none"
        raise VitrailError(f"{model.variant} has inputs of type {type(inputs).__name__}; needed: {needed}.")
    return inputs


def _read_inputs(folder: Path, kind: type[ModelInputs]) -> ModelInputs:
    """Read the inputs of a model from their file."""
    path = folder / kind.file
    try:
        return kind.from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no {kind.file}, so it is not a whole model folder.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error


def _refuse_altered(model: Model, values: dict[str, Any], inputs: ModelInputs | None) -> None:
    """Refuse a model whose parts were exchanged: `load_model` could not rebuild it."""
    check_layers(model, "a model folder holds its weights")
    if hasattr(model, "unconverted"):
        raise VitrailError(
            f"This is an optimized {model.variant}, whose weights are packed for this machine.\n"
            "Save the model that it was made from; vitrail.optimize repeats the conversion in about a second."
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        held: dict[str, Any] = {} if inputs is None else dict.fromkeys(inputs_in(model.config), inputs)
        described = replay(create_model(model.variant, **values, **held), model.edits).state_dict()
    wrong = _differing(described, model.state_dict())
    if wrong:
        raise VitrailError(
            f"{model.variant} was changed after it was made: {len(wrong)} tensors are not those of its config, first"
            f" {wrong[0]}.\nA folder of it could not be loaded again. Keep its state_dict beside its code."
        )


def _differing(described: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the tensors that only one side has, then those of other shapes."""
    wrong = sorted(set(described) ^ set(given))
    return wrong + [name for name in described if name in given and described[name].shape != given[name].shape]


def _card(model: Model, about: dict[str, Any]) -> str:
    """Return the card of a model."""
    return model_card(
        str(model.variant),
        parameters=sum(value.numel() for value in model.parameters()) + stored_weights(model),
        inputs=about["inputs"],
        edits=[edit.summary() for edit in model.edits],
        metadata=model.plain_metadata(about["metadata"]),
        kind=model.kind,
        metrics=about["metrics"],
        dataset=about["dataset"],
        license=about["license"] or "unknown",
    )


def _find(source: str | Path) -> Path:
    """Return the folder of a source, after a download if it is on the hub."""
    if str(source).startswith("hf:"):
        from vitrail.weights.hub import pull

        return pull(str(source))
    folder = Path(source)
    settle(folder)
    if folder.is_dir():
        check_one_model(folder)
        return folder
    what = "is a file, not a model folder" if folder.exists() else "is not there"
    raise VitrailError(
        f"{source} {what}.\nGive a folder that vitrail.save_model wrote, or hf:org/name@revision for one on the hub;\n"
        "other libraries' checkpoints are read by vitrail.load_weights and `vitrail convert`."
    )


def check_one_model(folder: Path) -> None:
    """Refuse a folder of models, such as the folds of a cross-validation or the trials of a sweep.

    Raises:
        VitrailError: it is no model folder, and holds some; the message names them.
    """
    if (folder / MANIFEST).is_file():
        return
    inside = [str(place) for place in sorted(folder.iterdir()) if is_model_folder(model_folder(str(place)))]
    if inside:
        listed = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "")
        count = "a model" if len(inside) == 1 else f"{len(inside)} models"
        raise VitrailError(f"{folder} is no model folder; it holds {count}: {listed}.\nGive one of them.")


def _replay(model: Model, edits: Any, origin: Path) -> None:
    """Replay the edits that a file states."""
    try:
        replay(model, edits_from_json(edits, str(origin)))
    except DataError:
        raise
    except VitrailError as error:
        known = str(origin) in str(error)
        raise type(error)(str(error) if known else f"{origin} states an edit that does not fit: {error}") from error


def _fill(model: Model, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Put tensors into a model, all of them or none."""
    wrong = _differing(model.state_dict(), tensors)
    if wrong:
        raise DataError(
            f"{folder / TENSORS} does not fit what {CONFIG} describes: {len(wrong)} keys differ, first {wrong[0]}.\n"
            "The two files belong to different models: copy the whole folder again."
        )
    model.load_state_dict(tensors)


def check_replaceable(folder: Path) -> None:
    """Check that a folder is empty or a model folder before it is replaced."""
    if folder.is_dir() and os.listdir(folder) and not is_model_folder(folder):
        raise VitrailError(
            f"{folder} holds other files, and saving a model replaces the whole folder.\n"
            "Choose a new folder, or an earlier model folder."
        )


def _tuples(value: Any) -> Any:
    """Turn the lists of JSON back into the tuples of a frozen config."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
