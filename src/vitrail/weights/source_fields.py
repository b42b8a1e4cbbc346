"""Fields in which libraries differ with the same weights: taken over from the source of the weights."""

from dataclasses import replace
from typing import Any

from vitrail.weights.checkpoint_io import RawCheckpoint
from vitrail.weights.detect import detect
from vitrail.weights.metadata import read_metadata

CHOICES = ("edge", "pooling", "padding", "reduction_eps", "norm_eps", "last_norm_eps", "num_heads", "dilations")
"""Fields that change the logits and no shape."""


def source_fields(checkpoint: RawCheckpoint, config: object) -> dict[str, Any]:
    """Return the fields of a config that the source of a checkpoint states and that shapes do not tell.

    They come from its metadata, else from the library of its key names. The preprocessing keeps the size and the crop
    of the config.

    Args:
        checkpoint: the checkpoint.
        config: the config of the model that gets the weights.
    """
    form = detect(checkpoint.tensors, checkpoint.origin).format
    said = read_metadata(checkpoint, form)
    stated = {**form.answers, **said.fields}
    fields = {name: stated[name] for name in CHOICES if name in stated and hasattr(config, name)}
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    ours = getattr(config, "preprocess", None)
    if said.preprocess is not None and ours is not None:
        fields["preprocess"] = replace(said.preprocess, size=ours.size, crop=ours.crop)
    return fields
