"""Load a checkpoint into a model: detect the format, map the keys, adapt the sizes, report the changes."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.edits.edit import Edit, edits_from_json, edits_to_json, replay
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.weights.adapt import Adapted, adapt
from vitrail.weights.backbone_weights import classifier_of, fills_backbone_only, move_backbone
from vitrail.weights.checkpoint_io import RawCheckpoint, read_checkpoint
from vitrail.weights.detect import Detected, detect, looks_like, narrow
from vitrail.weights.folder import model_folder
from vitrail.weights.infer_config import differing_fields
from vitrail.weights.manifest import MANIFEST, verify
from vitrail.weights.metadata import override_words
from vitrail.weights.pretrained import PRETRAINED, pinned_weights
from vitrail.weights.source_fields import source_fields

Source = str | Path | Mapping[str, Tensor] | RawCheckpoint

log = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """Report of `load_weights`.

    Args:
        source: source of the weights; a hub id has its commit.
        format: library of the checkpoint's key names.
        loaded: number of tensors loaded.
        adapted: change of each adapted tensor, by key.
        kept: keys that keep their initial values, or zeros if they are a head of other classes, with the reason.
        missing: keys of the model that are not in the checkpoint (only with `strict=False`).
        unexpected: keys of the checkpoint that are not in the model (only with `strict=False`).
        notes: steps taken to find the tensors.
        differs: fields of the model that the source computes with another value, so that the logits differ.
    """

    source: str
    format: str
    loaded: int = 0
    adapted: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    differs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.format} weights, {self.loaded} tensors loaded"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  adapted: {key} {how}" for key, how in _grouped(self.adapted)]
        lines += [f"  initialised with zeros: {key}, {why}" for key, why in _grouped(self.kept)]
        lines += [f"  {what}: {_some(keys)}" for what in ("missing", "unexpected") if (keys := getattr(self, what))]
        if self.differs:
            fields = ", ".join(f"{name}={value!r}" for name, value in self.differs.items())
            lines.append(f"  the logits differ from the source's, which has {fields}: create the model with that")
        return "\n".join(lines)


def load_weights(model: Model, source: Source, *, strict: bool = True, new_head: bool = False) -> LoadReport:
    """Load weights in any known format, adapting tensors of other sizes, and report the changes.

    Sizes that are adapted: the number of classes (the head is zeroed), input channels, position tables,
    window size, patch size. A head of other classes is initialised with zeros, which is also
    logged as a warning. Edits that a model folder states (heads removed, blocks dropped) are replayed on the model.

    Args:
        model: a model from `create_model`; it is changed only if everything fits.
        source: a file, a folder, a run folder (its best weights), `hf:org/name@revision`, `pretrained` (the public
            weights of the model's variant), a state dict, or a `RawCheckpoint`.
        strict: whether missing and unexpected keys are an error.
        new_head: whether a head that the checkpoint does not have is initialised with zeros.

    Raises:
        VitrailError: the weights are another model's; the message names the differences and the detected variants.
        DataError: the file cannot be read, or is in no known format.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", num_classes=10, depth=1)
        >>> print(load_weights(model, model.state_dict()))
        state dict: vitrail weights, 20 tensors loaded
    """
    checkpoint = read_source(source, getattr(model, "variant", None))
    found = detect(checkpoint.tensors, checkpoint.origin)
    if found.format.reads_config:
        found = found._replace(mapped=found.format.read(checkpoint.tensors, getattr(model, "config", None)))
    _refuse_other_copies(found, checkpoint.origin, model)
    edits = _new_edits(model, checkpoint)
    if fills_backbone_only(model, found.mapped.tensors):
        _refuse_edits(edits, checkpoint.origin, "they are those of a whole model, and only its backbone is taken")
        return _load_backbone(model, checkpoint)
    edited = replay(deepcopy(model), edits) if edits else model  # the model itself is changed only if all fits
    adapted = adapt(found.mapped.tensors, edited)
    own = edited.state_dict()
    _leave_headless(adapted, own)
    if new_head:
        _keep_new_head(adapted, own, model)
    misfits = _Misfits.between(adapted, own, found)
    if misfits.shapes or ((misfits.missing or misfits.unexpected) and strict) or not _any_fits(adapted, own, misfits):
        raise VitrailError(_explain(misfits, model, checkpoint, found))
    fitting = {key: value for key, value in adapted.tensors.items() if key in own}
    replay(model, edits)
    model.load_state_dict(fitting | _zero_heads(adapted, own), strict=False)
    report = LoadReport(
        checkpoint.origin,
        found.format.name,
        len(fitting),
        adapted.changes,
        adapted.kept,
        misfits.missing,
        misfits.unexpected,
        checkpoint.notes,
        _differing(checkpoint, model),
    )
    urgent = report.kept or report.missing or report.differs
    log.log(logging.WARNING if urgent else logging.INFO, "%s", report)
    return report


def _refuse_other_copies(found: Detected, origin: str, model: Model) -> None:
    """Refuse a checkpoint whose tensors are not tied as the architecture ties them; a classifier does not read these.

    Raises:
        VitrailError: a tensor that should be a copy of another one differs from it.
    """
    classifier = any(key.startswith("head.linear.") for key in model.state_dict())
    if found.mapped.differing and not classifier:
        first = found.mapped.differing[0]
        raise VitrailError(
            f"{origin} has a {first} of its own (tie_word_embeddings=False); the architectures here compute\n"
            f"{' and '.join(found.format.families)} with one table of words for input and output.\n"
            "The outputs would not be those of the weights. No architecture of ours has this."
        )


def _new_edits(model: Model, checkpoint: RawCheckpoint) -> tuple[Edit, ...]:
    """Return the edits that a checkpoint states and the model does not have.

    Raises:
        VitrailError: the model has other edits.
    """
    edits = edits_from_json(checkpoint.config.get("edits", []), checkpoint.origin)
    own = tuple(getattr(model, "edits", ()))
    if not edits or edits_to_json(own) == edits_to_json(edits):
        return ()
    if own:
        _refuse_edits(edits, checkpoint.origin, f"and this model has others ({own[0].summary()})")
    return edits


def _refuse_edits(edits: tuple[Edit, ...], origin: str, why: str) -> None:
    if edits:
        raise VitrailError(f"{origin} has edits ({edits[0].summary()}), {why}.\nLoad it with vitrail.load_model.")


def _load_backbone(model: Model, checkpoint: RawCheckpoint) -> LoadReport:
    """Load a classifier's checkpoint into the backbone of a dense model; the decoder keeps its random weights."""
    classifier = classifier_of(model)
    report = load_weights(classifier, checkpoint)
    taken, fresh = move_backbone(classifier, model)
    report.loaded = taken
    report.notes = [*report.notes, f"backbone only: the decoder keeps its random weights ({fresh} tensors)"]
    log.warning("%s", report)
    return report


def _differing(checkpoint: RawCheckpoint, model: Model) -> dict[str, Any]:
    """Return the fields that the source states and the model has with another value; not the preprocessing."""
    config = getattr(model, "config", None)
    stated = {} if config is None else source_fields(checkpoint, config)
    return {name: value for name, value in stated.items() if name != "preprocess" and value != getattr(config, name)}


@dataclass
class _Misfits:
    """Mismatches between a checkpoint and a model."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @classmethod
    def between(cls, adapted: Adapted, own: Mapping[str, Tensor], found: Detected) -> "_Misfits":
        """Compare keys, then shapes."""
        got = adapted.tensors
        return cls(
            missing=[key for key in own if key not in got and key not in adapted.kept],
            unexpected=found.mapped.unexpected + found.mapped.incomplete + [key for key in got if key not in own],
            shapes=[key for key in got if key in own and got[key].shape != own[key].shape],
        )


def read_source(source: Source, variant: str | None = None) -> RawCheckpoint:
    """Read a file, a folder, a run (its best weights), a hub id or a state dict; a model folder is checked first.

    Args:
        source: the checkpoint; `pretrained` is the public one of the variant.
        variant: name of the variant, if it is known.
    """
    if isinstance(source, RawCheckpoint):
        return source
    checkpoint = _read(source, variant)
    tensors, notes = narrow(checkpoint.tensors)
    return replace(checkpoint, tensors=tensors, notes=[*checkpoint.notes, *notes])


def _read(source: str | Path | Mapping[str, Tensor], variant: str | None) -> RawCheckpoint:
    if source == PRETRAINED:
        if variant is None:
            raise VitrailError(f"{PRETRAINED} names the public weights of a variant: give it, such as --model NAME.")
        source = pinned_weights(variant)
    if isinstance(source, Mapping):
        return RawCheckpoint(dict(source), "state dict")
    source = model_folder(str(source))
    if (Path(source) / MANIFEST).is_file():
        verify(source)
    return read_checkpoint(source)


def _leave_headless(adapted: Adapted, own: Mapping[str, Tensor]) -> None:
    """Drop the checkpoint's head if the model has none."""
    if not any(key.startswith("head.linear.") for key in own):
        for key in [key for key in adapted.tensors if key.startswith("head.") and key not in own]:
            del adapted.tensors[key]
            adapted.changes[key] = "left out: the model has no head"


def _keep_new_head(adapted: Adapted, own: Mapping[str, Tensor], model: Model) -> None:
    """Count the classifier of the model as kept, if the checkpoint has none."""
    width = getattr(getattr(model, "config", None), "num_classes", None)
    if any(key.startswith("head.linear") for key in [*adapted.tensors, *adapted.kept]):
        return
    for key, value in own.items():
        if key.startswith("head.") and key not in adapted.tensors and len(value.shape) and len(value) == width:
            adapted.kept[key] = "the checkpoint has no head"


def _zero_heads(adapted: Adapted, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return zeros for heads of other classes, as ViT's authors begin to fine-tune: the first loss is log K."""
    return {key: torch.zeros_like(own[key]) for key in adapted.kept if key.startswith("head.")}


def _any_fits(adapted: Adapted, own: Mapping[str, Tensor], misfits: _Misfits) -> bool:
    """Return whether at least one backbone tensor fits the model."""
    return any(key in own and not key.startswith("head.") for key in adapted.tensors)


def _explain(misfits: _Misfits, model: Model, checkpoint: RawCheckpoint, found: Detected) -> str:
    """Return the error message for a mismatch: tensors, detected variants, remedy; at most six lines."""
    own, got = model.state_dict(), found.mapped.tensors
    variant = getattr(model, "variant", "") or type(model).__name__
    lines = [f"{checkpoint.origin} does not fit {variant}:"]
    if misfits.shapes:
        key, count = misfits.shapes[0], len(misfits.shapes)
        differ = "1 shape differs," if count == 1 else f"{count} shapes differ, first"
        lines.append(f"  {differ} {key}: {tuple(got[key].shape)}, needed {tuple(own[key].shape)}")
    if misfits.missing:
        lines.append(f"  missing: {_some(misfits.missing)}")
    if misfits.unexpected:
        lines.append(f"  unexpected: {_some(misfits.unexpected)}")
    names, stated = looks_like(got, found.format.families), _stated(model, checkpoint)
    if stated:
        lines.append(stated)
    elif inside := _inside(found, checkpoint):
        lines.append(f"It is another architecture: its layers have tensors that ours lack, such as {inside}.")
    elif variant in names or _is_trunk(misfits):
        lines.append(f"{_kinship(misfits, model, got)} Load what fits with load_weights(model, source, strict=False).")
    elif names:
        lines.append(f"It looks like {found.format.name}'s {names[0]}: try create_model({names[0]!r}, weights=...).")
    else:
        families = " or ".join(found.format.families) or "an architecture of ours"
        lines.append(f"It has {found.format.name}'s names for {families}, but the sizes of no published variant.")
    return "\n".join(lines)


def _inside(found: Detected, checkpoint: RawCheckpoint) -> str:
    """Return a tensor that is not mapped, of a layer whose other tensors are; empty if there is none."""
    unmapped = found.mapped.unexpected
    layers = {key.rpartition(".")[0] for key in checkpoint.tensors.keys() - set(unmapped)} - {""}
    return next((key for key in unmapped if key.rpartition(".")[0] in layers), "")


def _is_trunk(misfits: _Misfits) -> bool:
    """Return whether all tensors fit but those of the head."""
    differing = [*misfits.missing, *misfits.unexpected, *misfits.shapes]
    return all(key.startswith("head.") for key in differing)


def _kinship(misfits: _Misfits, model: Model, got: Mapping[str, Tensor]) -> str:
    """Return in one sentence how a checkpoint of the model's trunk differs from the model."""
    if not misfits.missing or any(not key.startswith("head.") for key in misfits.missing):
        return "It is this model with other keys around it."
    heads = [key for key in got if key.startswith("head.")]
    if not heads:
        return "It has no head."
    config = getattr(model, "config", None)
    kind = differing_fields(got, config).get("head") if hasattr(config, "head") else None
    if kind is None:
        return f"It has another head ({_some(heads)})."
    return f"It has another head: give head={kind!r} to create_model to take it."


def _stated(model: Any, checkpoint: RawCheckpoint) -> str:
    """Return what a model folder states of its model, if it is not this one, and the remedy; else an empty text."""
    fields, config = checkpoint.config.get("config"), getattr(model, "config", None)
    if checkpoint.stated is None or not isinstance(fields, dict) or config is None:
        return ""
    if checkpoint.stated != model.variant:
        return f"The file is a {checkpoint.stated}: leave --model out to take it (in Python, vitrail.load_model)."
    words = " ".join(override_words(fields, config))
    if not words:
        return ""
    return (
        f"The file is a {model.variant} with {words}.\n"
        "Leave --model out to take these, or give them to --set (in Python, to create_model)."
    )


def _some(keys: list[str]) -> str:
    """Format the first keys of a list."""
    return f"{', '.join(keys[:2])}" + (f" and {len(keys) - 2} more" if len(keys) > 2 else "")


def _grouped(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Group the keys that share a fact."""
    by_fact: dict[str, list[str]] = {}
    for key, fact in facts.items():
        by_fact.setdefault(str(fact), []).append(key)
    return [(_some(keys), fact) for fact, keys in by_fact.items()]
