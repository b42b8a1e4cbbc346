"""Rebuild the model of a checkpoint: variant, config, weights and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from vitrail.errors import DataError, VitrailError
from vitrail.models import catalogue, create_model, family_of, make_config
from vitrail.parts.model import Model
from vitrail.weights.checkpoint_io import RawCheckpoint
from vitrail.weights.detect import Detected, detect, looks_like
from vitrail.weights.folder import TENSORS, is_model_folder, load_model
from vitrail.weights.infer_config import differing_fields
from vitrail.weights.keymap import Format
from vitrail.weights.load import Source, load_weights, read_source
from vitrail.weights.metadata import Metadata, contradictions, read_metadata, unknown
from vitrail.weights.oblong import oblong_size
from vitrail.weights.peer_fields import TIMM_EQUAL, timm_name, unsupported_arguments


@dataclass
class LoadedModel:
    """A model built from a checkpoint.

    Args:
        model: the model, with `labels` if the names of the classes are known.
        format: library of the checkpoint's key names.
        also: other variants with the same tensors.
        notes: steps taken to find the tensors and the sizes.
    """

    model: Model
    format: str
    also: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def from_checkpoint(source: Source, variant: str | None = None, **fields: Any) -> LoadedModel:
    """Rebuild the model of a checkpoint at its own sizes, without resizing or loss.

    Sizes come from `fields`, else from the shapes of the tensors, else from a `config.json` or the file's header, else
    from the variant. If libraries compute different logits with the same weights, the key names select the library.

    Args:
        source: a file, a folder, `hf:org/name@revision` or a state dict. A model folder brings its own config.
        variant: name of the variant; detected from metadata, keys and shapes if None.
        fields: fields of the config that neither shapes nor a `config.json` determine, such as `num_heads=4`.

    Raises:
        VitrailError: the variant is not the checkpoint's, or a field that changes its logits is unknown, or its
            `config.json` names a model of timm that is not in the catalogue and no variant is given.
        DataError: the source cannot be read or recognised.

    Example:
        >>> small = create_model("swin_tiny_patch4_window7_224", dim=24, depths=(1, 1), num_heads=(2, 4), window_size=4)
        >>> found = from_checkpoint(small.state_dict(), "swin_small_patch4_window7_224").model.config
        >>> found.depths, found.num_heads, found.window_size
        ((1, 1), (2, 4), 4)
    """
    checkpoint = read_source(source, variant)
    _refuse_oblong(checkpoint, {})
    if checkpoint.stated in catalogue():
        _refuse_arguments(checkpoint, str(checkpoint.stated))
    found = detect(checkpoint.tensors, checkpoint.origin)
    if variant is None:
        _refuse_unknown_name(checkpoint)
    file, form = checkpoint.file, found.format
    ours_whole = file is not None and file.name == TENSORS and is_model_folder(file.parent)
    if ours_whole and variant in (None, checkpoint.stated) and not fields:
        return LoadedModel(load_model(checkpoint.folder or ""), form.name, notes=checkpoint.notes)
    _refuse_oblong(checkpoint, found.mapped.tensors)
    if checkpoint.config.get("edits"):
        raise VitrailError(
            f"{checkpoint.origin} is a model with edits, which its folder describes as a whole.\n"
            "Leave the name of the variant and its fields out."
        )
    said = read_metadata(checkpoint, form)
    if not said.complete:
        said = replace(said, fields={**form.answers, **said.fields})
    ours, names = found.mapped.tensors, _agreeing(looks_like(found.mapped.tensors, form.families), checkpoint, form)
    name = _choose(variant, names, checkpoint, found, said)
    if checkpoint.stated not in catalogue():
        _refuse_arguments(checkpoint, name)
    if not said.complete:
        said = replace(said, fields={**_stored_fields(checkpoint, form, name), **said.fields})
    values, notes = _fields(ours, name, said, fields, checkpoint.origin)
    model: Any = create_model(name, **values)
    _fill(model, checkpoint, found, fields)
    classes = getattr(model.config, "num_classes", None)
    model.labels = said.labels if said.labels and len(said.labels) == classes else None
    notes += [
        f"config.json has fields that are not known here: {', '.join(new)}"
        for new in _unknown(checkpoint, found, model)
    ]
    if said.preprocess is not None and said.preprocess.size == model.config.preprocess.size:
        model.preprocess = said.preprocess
    also = [n for n in names if n != name and differing_fields(ours, make_config(n)) == _own(ours, name)]
    return LoadedModel(model, form.name, also, [*checkpoint.notes, *said.notes, *notes])


def _refuse_oblong(checkpoint: RawCheckpoint, tensors: Mapping[str, Tensor]) -> None:
    """Refuse models of oblong images, by the config or the tensors under our names."""
    if oblong := oblong_size(checkpoint.config, tensors):
        raise DataError(
            f"{checkpoint.origin} is of oblong images ({oblong}); architectures here take square ones.\n"
            "Resize its position table in its own library, or train from weights of square images."
        )


def _refuse_arguments(checkpoint: RawCheckpoint, variant: str) -> None:
    """Refuse arguments of timm's model that the variant, as it is here, does not compute."""
    stated = timm_name(checkpoint.config)
    wrong = [] if stated is None else unsupported_arguments(checkpoint.config, family_of(variant))
    if wrong:
        raise VitrailError(
            f"{checkpoint.origin}: its config.json says {', '.join(wrong[:3])}; {variant} does not do that here.\n"
            "Its answers would not be those of the weights."
        )


def _refuse_unknown_name(checkpoint: RawCheckpoint) -> None:
    """Refuse a model of timm under a name that is not in the catalogue: other layers can have the same tensors."""
    stated = timm_name(checkpoint.config)
    if stated is not None and stated not in catalogue() and stated not in TIMM_EQUAL:
        raise VitrailError(
            f"{checkpoint.origin}: its config.json says timm's {stated}, which is not in the catalogue.\n"
            "Its tensors would fit a model that computes something else, as those of resnetblur50 fit resnet50.\n"
            "If you know that a variant computes the same, give its name with --model NAME."
        )


def _unknown(checkpoint: RawCheckpoint, found: Detected, model: Model) -> list[list[str]]:
    fields = unknown(checkpoint.config, found.format, model.config)
    return [fields[:5]] if fields else []


def _stored_fields(checkpoint: RawCheckpoint, form: Format, name: str) -> dict[str, Any]:
    """Return the fields that follow from stored tables."""
    return {} if form.stored_fields is None else form.stored_fields(checkpoint.tensors, make_config(name))


def _agreeing(names: list[str], checkpoint: RawCheckpoint, form: Format) -> list[str]:
    """Return the variants that have the fields of stored tables; all if none has."""
    if form.stored_fields is None or len(names) < 2:
        return names
    configs = {name: make_config(name) for name in names}
    stored = {name: form.stored_fields(checkpoint.tensors, config) for name, config in configs.items()}
    agree = [
        name
        for name, config in configs.items()
        if all(getattr(config, field, value) == value for field, value in stored[name].items())  # the size may differ
    ]
    return agree or names


def _own(ours: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    return differing_fields(ours, make_config(name))


def _choose(variant: str | None, names: list[str], checkpoint: RawCheckpoint, found: Detected, said: Metadata) -> str:
    """Choose the variant: the argument, else the metadata's, else the matching one, else the closest."""
    came_as, families = found.format.name, found.format.families
    if variant is not None:
        foreign = families and family_of(variant) not in families  # an unknown name raises with the nearest ones
        if foreign or (names and variant not in names and not said.complete):
            what = names[0] if names else " or ".join(families)
            raise VitrailError(
                f"{checkpoint.origin} looks like {came_as}'s {what}, not like {variant}."
                + (f"\nLeave the name of the variant out, or give one of: {', '.join(names[:4])}." if names else "")
            )
        return variant
    if checkpoint.stated in names or (said.complete and checkpoint.stated in catalogue()):
        return str(checkpoint.stated)
    if names:
        return names[0]
    known = checkpoint.stated in catalogue() and family_of(str(checkpoint.stated)) in families
    if known:
        return str(checkpoint.stated)
    kind = checkpoint.config.get("model_type")
    families = (kind,) if kind in families else families
    if len(families) != 1:
        raise VitrailError(
            f"{checkpoint.origin} has {came_as}'s names, but the sizes of no published variant.\n"
            "Say which variant is closest with --model NAME, for its way of preparing images; `vitrail models`"
            " lists them."
        )
    return min(
        (name for name in catalogue() if family_of(name) in families),
        key=lambda name: len(_own(found.mapped.tensors, name)),
    )


def _fields(
    ours: Mapping[str, Tensor], name: str, said: Metadata, given: Mapping[str, Any], origin: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that differ from the variant, and notes on them."""
    stated = {**said.fields, **({} if said.preprocess is None else {"preprocess": said.preprocess})}
    config = make_config(name, **stated)
    own = differing_fields(ours, config)
    values = {**stated, **own, **given}
    if said.complete or not own.keys() - {
        "num_classes",
        "in_channels",
        "image_size",
        "head",
        "vocab_size",
        "max_length",
    }:
        return values, []
    untold = [one for one in _untold(config, own) if one not in values]
    if untold:
        raise VitrailError(
            f"{origin} has other sizes than {name}, and its tensors do not say {' or '.join(untold)}.\n"
            f"Give it: vitrail convert {origin} --model {name} --set {' '.join(f'{one}=...' for one in untold)}"
            " --out FOLDER,\nthen use FOLDER."
        )
    note = f"the sizes are of no published variant; what tensors do not tell is as in {name}"
    if hasattr(config, "preprocess"):
        note += f", at {values.get('image_size', config.preprocess.size)} pixels"
    return values, [note]


def _untold(config: Any, own: Mapping[str, Any]) -> list[str]:
    """Return the fields that change the logits, are not in the shapes, and cannot be the variant's."""
    heads = "dim" in own and type(getattr(config, "num_heads", None)) is int
    heads = heads or ("dims" in own and "num_heads" not in own and hasattr(config, "num_heads"))
    dilations = len(own.get("depths", ())) not in (0, len(getattr(config, "dilations", own.get("depths", ()))))
    return ["num_heads"] * heads + ["dilations"] * dilations


def _fill(model: Model, checkpoint: RawCheckpoint, found: Detected, given: Mapping[str, Any]) -> None:
    """Load the weights into the model, and raise an error if it is not the same model.

    Args:
        model: the model that the tensors and the fields describe.
        checkpoint: the weights.
        found: their format.
        given: the fields of the caller.
    """
    wrong = contradictions(checkpoint.config, found.format, model.config)
    if wrong:
        raise VitrailError(
            f"{checkpoint.origin}: its config.json says {', '.join(wrong[:3])}; {model.variant} does not do that.\n"
            "Its answers would not be those of the weights. No architecture of ours has this."
        )
    report = load_weights(model, checkpoint)
    resized = {**report.adapted, **report.kept}
    if resized:
        key, how = next(iter(resized.items()))
        fields = ", ".join(f"{name}={value!r}" for name, value in given.items())
        cause = f"with {fields}" if fields else "with the sizes that could be read from it"
        remedy = "Leave out the fields that tensors tell" if fields else "Give the field of this size"
        raise VitrailError(
            f"{checkpoint.origin} has other sizes than {model.variant} {cause}: {key}, {how}.\n"
            f"Nothing is resized here. {remedy}, or resize with"
            f" vitrail.load_weights(create_model({model.variant!r}, ...), source)."
        )
