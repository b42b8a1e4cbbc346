"""Batches of data for scores, of any task: with the task's own loss where it fits the model, else by outputs alone."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.compress.gates import flat_outputs
from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.models import make_config
from vitrail.parts.model import Model
from vitrail.tasks import find_options, find_task
from vitrail.tasks.image_sources import find_images
from vitrail.tasks.inference import evaluating
from vitrail.tasks.task import RunSpec, Share
from vitrail.training.config import config_class

BATCH = 16


class CalibrationBatch(NamedTuple):
    """A batch of data.

    Args:
        run: computes the outputs of a model on it.
        loss: the loss of outputs, or None if no labels fit the model.
    """

    run: Callable[[nn.Module], object]
    loss: Callable[[Any], Tensor] | None = None

    def objective(self, model: nn.Module, seed: int = 0) -> Tensor:
        """Return a scalar to differentiate: the loss, or a random projection of the outputs.

        The squared gradient of `r^T f` with r ~ N(0, I) is in expectation the squared length of the Jacobian of f.
        """
        outputs = self.run(model)
        if self.loss is not None:
            return self.loss(outputs)
        flat = flat_outputs(outputs)
        return flat @ torch.randn(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)


def damage(model: nn.Module, probes: Sequence[CalibrationBatch], reference: Sequence[Tensor]) -> float:
    """Return how much worse a model is on probes: its mean loss, or the relative distance of its outputs.

    Args:
        model: the model.
        probes: the batches.
        reference: outputs of the uncompressed model on them, `reference_outputs`.
    """
    total = 0.0
    with torch.no_grad(), evaluating(model):
        for probe, target in zip(probes, reference, strict=True):
            outputs = probe.run(model)
            if probe.loss is not None:
                total += float(probe.loss(outputs))
            else:
                total += float((flat_outputs(outputs) - target).norm() / target.norm().clamp(min=1e-12))
    return total / len(probes)


def reference_outputs(model: nn.Module, probes: Sequence[CalibrationBatch]) -> list[Tensor]:
    """Return the outputs of a model on each probe."""
    with torch.no_grad(), evaluating(model):
        return [flat_outputs(probe.run(model)) for probe in probes]


def open_probes(
    model: Model, data: str, samples: int, seed: int = 0, note: Callable[[str], None] = lambda text: None
) -> list[CalibrationBatch]:
    """Return probes of a data set: batches of its training split with the task's loss, or inputs of another split.

    Args:
        model: the model; its task reads the data.
        data: name, file or folder of the data set.
        samples: number of samples.
        seed: seed of their order.
        note: receives why the loss is not used.

    Raises:
        VitrailError: the data cannot be read, or gives the model no inputs.
    """
    try:
        return training_probes(model, data, samples, seed)
    except VitrailError as reason:
        note(f"scores are those of outputs, not of the loss: {str(reason).partition(chr(10))[0]}")
    try:
        return evaluation_probes(model, data, samples)
    except VitrailError:
        if getattr(model, "preprocess", None) is None or not Path(data).exists():
            raise
        return image_probes(model, data, samples)


def training_probes(model: Model, data: str, samples: int, seed: int = 0) -> list[CalibrationBatch]:
    """Return batches of the training split with the loss of the task.

    Raises:
        VitrailError: there is no such split, or its classes are not those of the model.
    """
    task = find_task(model.task)
    config = config_class(model.task)(data=data, model=model.variant)
    opened = getattr(task, "open_run", None)
    splits = task.open(data, config.val_share, config.bad) if opened is None else opened(config)
    bound: Any = task.bind(config, RunSpec(data, model.variant, None, _overrides(model), seed), splits)
    _check_same_outputs(model, bound, data)
    device = next(model.parameters()).device
    loader, _ = bound.loaders(Share(0, 1, device, seed, 0, config.bad), min(BATCH, samples), min(BATCH, samples))
    batches = [batch.to(device) for batch in islice(loader.epoch(), -(-samples // BATCH))]

    def probe(batch: Any) -> CalibrationBatch:
        return CalibrationBatch(lambda model: bound.forward(model, batch), lambda outputs: bound.loss(outputs, batch))

    return [probe(batch) for batch in batches]


def _overrides(model: Model) -> dict[str, Any]:
    """Return the fields in which a model differs from its variant."""
    published = make_config(model.variant)
    differing = {key: value for key, value in vars(model.config).items() if value != getattr(published, key)}
    preprocess = differing.pop("preprocess", None)
    differing.pop("num_classes", None)  # the data's own
    return differing if preprocess is None else {**differing, "image_size": preprocess.size}


def _check_same_outputs(model: Model, bound: Any, data: str) -> None:
    """Check that the outputs for the data mean what the model's own mean."""
    own, theirs = (
        {key: value.shape for key, value in one.state_dict().items() if key.startswith("head.")}
        for one in (model, bound.model)
    )
    stated = bound.metadata()
    other = [
        key for key, value in stated.items() if model.metadata.get(key) is not None and not _same(model, key, value)
    ]
    if other or own != theirs:
        raise VitrailError(f"the training split of {data} has other {other[0] if other else 'outputs'} than the model")


def _same(model: Model, key: str, value: Any) -> bool:
    own = model.metadata[key]
    return list(own) == list(value) if isinstance(own, tuple | list) else own == value


def evaluation_probes(model: Model, data: str, samples: int) -> list[CalibrationBatch]:
    """Return inputs of the model, as an evaluation on the data makes them, without labels."""
    task, options = find_task(model.task), find_options(model.task).EvaluateOptions(batch=BATCH, optimize=False)
    split = _open_any(task, data)
    calls: list[tuple[Any, Any]] = []

    def record(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append((given, named))
        if len(calls) * BATCH >= samples:
            raise _Enough

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        task.evaluate(model, split, options)
    except _Enough:
        pass
    finally:
        handle.remove()
    if not calls:
        raise VitrailError(
            f"An evaluation on {data} does not call the model as a whole, so nothing can be scored on it."
        )
    return [_repeat(_usable(given), _usable(named)) for given, named in calls]


def image_probes(model: Model, data: str, samples: int) -> list[CalibrationBatch]:
    """Return images without labels as inputs of a model of images.

    Raises:
        VitrailError: there are no images.
    """
    prepare = EvalTransform(model.preprocess)
    found = find_images(data, prepare.mode)[:samples]
    pixels = torch.stack([prepare.to_pixels(image.read()) for image in found])
    parts = prepare.batch(pixels).to(next(model.parameters()).device).split(BATCH)
    return [_repeat((part,), {}) for part in parts]


def _repeat(given: Any, named: Any) -> CalibrationBatch:
    return CalibrationBatch(lambda model: model(*given, **named))


class _Enough(BaseException):
    """Ends an evaluation once enough inputs are there."""


def _usable(value: Any) -> Any:
    """Return a copy of inputs that gradients may flow through."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple | list):
        return type(value)(_usable(part) for part in value)
    return {key: _usable(part) for key, part in value.items()} if isinstance(value, dict) else value


def _open_any(task: Any, data: str) -> Any:
    """Open the training split, or else all of a data set that is not split."""
    try:
        return task.open_split(data, "train")
    except VitrailError:
        return task.open_split(data, "all")
