"""Sensitivity of a model to the format of each layer's weights, and formats mixed under a budget of loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.compress.moments import input_moments
from vitrail.edits.low_rank import put
from vitrail.edits.quantize import quantizable_layers, quantize_weights
from vitrail.errors import VitrailError
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.quantized_linear import FORMATS, QuantizedLinear, least_squares, quantized

BITS = {"8": "int8", "4": "int4", "codebook": "codebook"}
"""Formats of weights by the words of the command line."""


class Sensitivity(NamedTuple):
    """One layer in one format, all others as they were.

    Args:
        layer: name of the layer.
        format: name of the format.
        loss: growth of the loss on the data, or of the relative change of outputs if there are no labels.
        saved: bytes saved.
    """

    layer: str
    format: str
    loss: float
    saved: int


def layer_sensitivity(
    model: Model,
    probes: Sequence[CalibrationBatch],
    formats: Sequence[str] = tuple(FORMATS),
    note: Callable[[str], None] = lambda text: None,
) -> list[Sensitivity]:
    """Quantize one layer at a time and measure what that does on data; the model is as before afterwards.

    Args:
        model: the model.
        probes: batches of data.
        formats: formats to try.
        note: receives a line for each layer.

    Raises:
        VitrailError: there is no data, or no layer can be quantized.
    """
    check_layers(model, "its weights are needed to quantize them")
    if not probes:
        raise VitrailError("Sensitivity is measured on data. Give --data.")
    layers = quantizable_layers(model)
    if not layers:
        raise VitrailError("This model has no linear layers whose weights can be quantized.")
    moments, reference = mean_squares(model, layers, probes), reference_outputs(model, probes)
    whole, found = damage(model, probes, reference), []
    for number, name in enumerate(layers, 1):
        layer: Any = model.get_submodule(name)
        for kind in formats:
            packed = encoded(layer, kind, moments.get(name))
            put(model, name, packed)
            try:
                hurt = damage(model, probes, reference) - whole
            finally:
                put(model, name, layer)
            found.append(Sensitivity(name, kind, hurt, 4 * layers[name] - packed_bytes(packed)))
        note(f"{number} of {len(layers)}: {name}")
    return found


def mean_squares(model: nn.Module, layers: Mapping[str, int], probes: Sequence[CalibrationBatch]) -> dict[str, Tensor]:
    """Return the mean squares of the inputs of layers, by name; nothing without data."""
    moments = input_moments(model, layers, probes) if probes else {}
    return {name: found.second.diagonal().float() for name, found in moments.items()}


def encoded(layer: nn.Linear, name: str, moments: Tensor | None) -> QuantizedLinear:
    """Return a layer with its weights in a format."""
    packed = quantized(layer, FORMATS[name])
    packed.encode(layer.weight, least_squares, moments)
    return packed


def packed_bytes(layer: QuantizedLinear) -> int:
    """Return the bytes of the weights of a layer in a model folder, without its bias."""
    return sum(value.nbytes for key, value in layer.state_dict().items() if key != "bias")


def mixed_formats(
    model: Model, found: Sequence[Sensitivity], probes: Sequence[CalibrationBatch], budget: float
) -> tuple[dict[str, str], float]:
    """Choose a format for each layer: most bytes saved per loss first, as far as the measured loss stays in a budget.

    Each step moves one layer to a smaller format. Steps are ordered by bytes saved per predicted loss; the longest run
    of them whose loss together is within the budget is found by bisection, each try measured with all its layers.

    Args:
        model: the model; it is not changed.
        found: from `layer_sensitivity`.
        probes: batches of data.
        budget: most that the loss may grow.

    Returns:
        The format of each layer that is quantized, and the measured growth of the loss.

    Raises:
        VitrailError: not even the first step is within the budget.
    """
    steps = _steps(found)
    layers, reference = quantizable_layers(model), reference_outputs(model, probes)
    moments, whole = mean_squares(model, layers, probes), damage(model, probes, reference)

    def loss_of(count: int) -> float:
        chosen = {step.layer: step.format for step in steps[:count]}
        kept: dict[str, Any] = {name: model.get_submodule(name) for name in chosen}
        for name, kind in chosen.items():
            put(model, name, encoded(kept[name], kind, moments.get(name)))
        try:
            return damage(model, probes, reference) - whole
        finally:
            for name, layer in kept.items():
                put(model, name, layer)

    low, high, loss = 0, len(steps), 0.0
    while low < high:
        middle = (low + high + 1) // 2
        measured = loss_of(middle)
        if measured <= budget:
            low, loss = middle, measured
        else:
            high = middle - 1
    if not low:
        raise VitrailError(f"No layer can be quantized within a loss of {budget:g} on this data. Give a larger budget.")
    return {step.layer: step.format for step in steps[:low]}, loss


def quantize_all(model: Model, bits: str, probes: Sequence[CalibrationBatch]) -> None:
    """Quantize every linear layer in place, weighing errors by the data if there is any.

    Args:
        model: model to change.
        bits: a key of `BITS`.
        probes: batches of data.

    Raises:
        VitrailError: no layer can be quantized.
    """
    layers = quantizable_layers(model)
    if not layers:
        raise VitrailError("This model has no linear layers whose weights can be quantized.")
    moments = mean_squares(model, layers, probes) if bits != "8" else {}
    quantize_weights(model, dict.fromkeys(layers, BITS[bits]), moments)


def _steps(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Return the moves of layers in the order in which they are made.

    The steps of a layer go to ever smaller formats, and each gains less per loss than the one before (the convex hull
    of its formats), so a prefix of the order is a plan.
    """
    steps = []
    for layer in dict.fromkeys(one.layer for one in found):
        saved, loss = 0, 0.0
        options = [one for one in found if one.layer == layer]
        while better := [one for one in options if one.saved > saved]:
            best = max(better, key=lambda one: (one.saved - saved) / max(one.loss - loss, 1e-9))
            steps.append(((best.saved - saved) / max(best.loss - loss, 1e-9), best))
            saved, loss = best.saved, best.loss
    return [best for _, best in sorted(steps, key=lambda step: -step[0])]
