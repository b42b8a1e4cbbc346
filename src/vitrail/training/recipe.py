"""Default hyperparameters of a run: from scratch, or fine-tuning of trained weights.

Fields given by the user take precedence; the others are filled in once, when a run starts, and saved in its config.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from vitrail.training.config import RunConfig


class Recipe(NamedTuple):
    """Defaults that depend on the initial weights.

    Args:
        name: description for the log.
        epochs: passes over the training data.
        lr: peak learning rate.
        layer_decay: factor on the learning rate per block away from the head.
        warmup: warm-up as a share of the run.
        batch: largest default of the global batch size.
        updates: least updates an epoch, which makes batches of few samples smaller.
        model: variant that is trained if none is given.
    """

    name: str
    epochs: int
    lr: float
    layer_decay: float
    warmup: float
    batch: int
    updates: int
    model: str = "swin_tiny_patch4_window7_224"


FROM_SCRATCH = Recipe("from scratch", epochs=100, lr=1e-3, layer_decay=1.0, warmup=0.05, batch=128, updates=8)
FINE_TUNING = Recipe("fine-tuning", epochs=20, lr=5e-4, layer_decay=0.75, warmup=0.1, batch=32, updates=8)
"""Layer decay as in BEiT's fine-tuning; it protects the early blocks, so the new head may learn at a higher rate."""


def recipe_of(config: RunConfig) -> Recipe:
    """Return the recipe of a config: fine-tuning if it starts from weights; a task may have defaults of its own."""
    if config.weights is None:
        return FROM_SCRATCH._replace(**config.SCRATCH)
    return FINE_TUNING._replace(**config.FINE_TUNING)


def with_recipe(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Fill in the fields that were not given; return the config and sentences for the log.

    Example:
        >>> from vitrail.training.config import TrainConfig
        >>> config, notes = with_recipe(TrainConfig(data="digits", lr=2e-3))
        >>> config.lr, config.epochs, config.model, notes
        (0.002, 100, 'swin_tiny_patch4_window7_224', [])
    """
    notes, recipe = [], recipe_of(config)
    if config.model == "auto":
        config, notes = (replace(config, model=recipe.model), []) if config.weights is None else _model_of(config)
    if config.weights == "pretrained":
        from vitrail.weights.pretrained import pinned_weights

        config = replace(config, weights=pinned_weights(config.model))
        notes.append(f"Weights: {config.weights}.")
    absent = [name for name in ("epochs", "lr", "layer_decay", "warmup") if getattr(config, name) is None]
    values = {name: getattr(recipe, name) for name in absent}
    if values.get("lr", config.min_lr) < config.min_lr:
        values["lr"] = config.min_lr
    config = replace(config, **values)
    if config.weights is not None and absent:
        told = ", ".join(f"{name.replace('_', ' ')} {values[name]:g}" for name in absent if name in values)
        flags = " ".join("--" + name.replace("_", "-") for name in absent)
        notes.append(f"{recipe.name}: {told}; change with {flags}.")
    return config, notes


def _model_of(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Take the variant of the checkpoint, and the fields of its config that differ."""
    from vitrail.models import make_config
    from vitrail.weights.from_checkpoint import from_checkpoint
    from vitrail.weights.metadata import override_words

    assert config.weights is not None
    model = from_checkpoint(config.weights).model
    given = config.model_overrides()
    fields = {name: value for name, value in vars(model.config).items() if name not in given}
    usual: Any = make_config(model.variant)
    own, sized = override_words(fields, usual), ""
    config = replace(config, model=model.variant, set=(*own, *config.set))
    if getattr(config, "imgsz", 0) is None and "image_size" not in given and hasattr(usual, "preprocess"):
        size = model.config.preprocess.size
        if size != usual.preprocess.size:
            options: dict[str, Any] = {"imgsz": size}
            config, sized = replace(config, **options), f", at {size} pixels (--imgsz)"
    with_fields = " with " + " ".join(own) if own else ""
    return config, [f"The weights are of {model.variant}{with_fields}{sized}; --model chooses another."]
