"""Build models of text for a task: sizes from the vocabulary, weights of a checkpoint with another head."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.models import create_model, find, make_config
from vitrail.parts.model import Model
from vitrail.tasks.task import RunSpec
from vitrail.tasks.text_inputs import check_vocabulary
from vitrail.text.vocabulary import Vocabulary
from vitrail.weights.load import load_weights, read_source

log = logging.getLogger(__name__)


def build_text_model(run: RunSpec, vocabulary: Vocabulary, task: str, **needed: Any) -> Model:
    """Build the model of a run with the fields that its task needs, and load its weights.

    From random weights the word table has a row for each token of the vocabulary. Weights fill all but the head; a head
    that they lack keeps its random numbers.

    Args:
        run: variant, weights and overrides.
        vocabulary: the vocabulary; it becomes the model's `inputs`.
        task: name of the task.
        needed: fields of the config that the task fixes, such as `num_classes`.

    Raises:
        VitrailError: the variant lacks a field, or the weights are another model's.
    """
    overrides = {**run.overrides, **needed}
    if run.weights is None:
        overrides.setdefault("vocab_size", len(vocabulary))
    config = make_config(run.variant, **{key: value for key, value in run.overrides.items() if key not in needed})
    lacking = [key for key in ("vocab_size", *needed) if not hasattr(config, key)]
    if lacking:
        raise VitrailError(
            f"{run.variant} has no {lacking[0]}, so it cannot be trained for the task {task}.\n"
            f"See those that can: vitrail models --task {task}"
        )
    torch.manual_seed(run.seed)
    model = create_model(run.variant, **overrides)
    if run.weights is not None:
        load_trunk(model, run.weights)  # its error names the sizes of the file
    check_vocabulary(vocabulary, model)
    model.task, model.inputs = task, vocabulary
    return model


def load_trunk(model: Model, weights: str) -> None:
    """Load weights whose head may be of another task.

    Raises:
        VitrailError: a tensor of the backbone is missing.
    """
    checkpoint = read_source(weights, getattr(model, "variant", None))
    checkpoint = replace(checkpoint, tensors=_with_pooler(checkpoint.tensors, model.state_dict()))
    report = load_weights(model, checkpoint, strict=False)
    missing = [key for key in report.missing if not key.startswith("head.")]
    if missing:
        raise VitrailError(
            f"{weights} lacks {len(missing)} tensors of {getattr(model, 'variant', 'the model')}, first {missing[0]}."
        )
    if report.missing:
        log.warning("%s has no head for this task: %d tensors of it are random", weights, len(report.missing))


def _with_pooler(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a pretrained sentence vector to the classifier: both are `tanh(W x_1 + b)` of the first token.

    "BERT", section 4.1: fine-tuning adds the layer of the classes alone.
    """
    moved = dict(tensors)
    for part in ("weight", "bias"):
        theirs, ours = f"head.next.pool.linear.{part}", f"head.pool.linear.{part}"
        if theirs in tensors and ours in own and tensors[theirs].shape == own[ours].shape:
            moved.setdefault(ours, tensors[theirs])
    return moved


def meta_copy(model: Model) -> Model:
    """Return the model on the meta device, with what a model folder states.

    Example:
        >>> from vitrail.models import create_model
        >>> copy = meta_copy(create_model("bert_tiny", dim=8, depth=1, num_heads=1, vocab_size=9))
        >>> next(copy.parameters()).device
        device(type='meta')
    """
    with torch.device("meta"):
        shell: Any = find(model.variant).build(model.config)
    shell.variant, shell.config, shell.task, shell.inputs = model.variant, model.config, model.task, model.inputs
    return shell
