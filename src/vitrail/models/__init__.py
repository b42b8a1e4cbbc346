"""The catalogue: the one place where a string meets an architecture.

Each file in this room is one architecture: a frozen config, `build(config)` and `VARIANTS`, a plain dict from names
(timm's, which papers and checkpoints use too) to configs. `published` holds the published figures of each variant, so
that listing names imports no architecture; `custom.py` imports the user's own files.
"""

from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack

from vitrail.errors import VitrailError
from vitrail.inputs import inputs_in
from vitrail.models.catalogue import FAMILIES, HINT, catalogue, family_of, find, list_models, task_of
from vitrail.models.custom import built
from vitrail.models.override_fields import ModelFields
from vitrail.models.overrides import checked
from vitrail.models.published.hosted import HOSTED

if TYPE_CHECKING:
    from vitrail.parts.model import Model

__all__ = [
    "FAMILIES",
    "HINT",
    "catalogue",
    "create_model",
    "family_of",
    "find",
    "list_models",
    "make_config",
    "task_of",
]


def make_config(name: str, **overrides: Any) -> Any:
    """Return a variant's frozen config with some fields replaced.

    Args:
        name: a name in the catalogue.
        overrides: fields of the config; `image_size=n` is short for a `preprocess` of that size.

    Raises:
        VitrailError: if the name or a field is unknown, or a size is no whole number from 1 up.

    Example:
        >>> config = make_config("vit_tiny_patch16_224", depth=2, image_size=384)
        >>> config.depth, config.preprocess.size
        (2, 384)
    """
    config = find(name).VARIANTS[name]
    published = {field.name: getattr(config, field.name) for field in fields(config)}
    if "preprocess" in published:  # a family of images
        published["image_size"] = config.preprocess.size
    overrides = checked(overrides, published, name)
    if "backbone" in overrides:  # a dense model normalises as its backbone does
        own = make_config(overrides["backbone"]).preprocess
        overrides.setdefault("preprocess", replace(config.preprocess, mean=own.mean, std=own.std))
    size = overrides.pop("image_size", None)
    config = replace(config, **overrides)
    return config if size is None else replace(config, preprocess=replace(config.preprocess, size=size))


def create_model(
    name: str, weights: object = None, *, pretrained: bool = False, **overrides: Unpack[ModelFields]
) -> "Model":
    """Build a variant of the catalogue.

    Args:
        name: a name that `list_models` lists.
        weights: a file, a folder or a hub id to load weights from, or `pretrained`; random weights when None.
        pretrained: the same as `weights="pretrained"`: the public weights of the variant, from the hub or the cache.
            Without `num_classes`, the model gets the head of these weights, or none if they have none.
        overrides: fields of the variant's config, such as `num_classes=10`, `drop_path=0.1`, `image_size=384`.

    Returns:
        The model. Of images: `model(images)` gives logits, `model.features(images)` gives `Features`. Of text:
        `model(ids, layout)`.

    Raises:
        VitrailError: if the name or a field is unknown, or the numbers do not fit together.

    Example:
        >>> model = create_model("vit_tiny_patch16_224", num_classes=10, depth=1)
        >>> model.config.num_classes
        10
    """
    given: dict[str, Any] = {**overrides}
    if pretrained:
        if weights not in (None, "pretrained"):
            raise VitrailError(f"Both weights={weights!r} and pretrained=True are given; leave one of them out.")
        weights = "pretrained"
    if isinstance(weights, str) and weights == "pretrained" and name in HOSTED and HOSTED[name].classes is not None:
        given = {"num_classes": HOSTED[name].classes, **given}
    if weights is not None:  # the room above: opened only when asked for
        weights = import_module("vitrail.weights.load").read_source(weights, name)
        stated = import_module("vitrail.weights.source_fields").source_fields(weights, make_config(name, **given))
        config = make_config(name, **{**stated, **given})
    else:
        config = make_config(name, **given)
    model = built(name, find(name).build, config, given)
    model.variant, model.config = name, config
    model.task = model.task or task_of(name)
    for inputs in inputs_in(config).values():
        model.inputs = inputs
    if weights is not None:
        import_module("vitrail.weights.load").load_weights(model, weights, new_head="num_classes" in given)
    return model
