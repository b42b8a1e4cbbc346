"""Scores of heads and hidden channels: how much the model needs each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch
from vitrail.compress.gates import gates, watched
from vitrail.edits.head_layouts import LAYOUTS, PROJECTIONS
from vitrail.edits.heads import prunable_heads
from vitrail.edits.hidden import HIDDEN, prunable_hidden
from vitrail.edits.slicing import find
from vitrail.tasks.inference import evaluating


def head_scores(
    model: nn.Module, how: str, probes: Sequence[CalibrationBatch] = (), seed: int = 0
) -> dict[str, Tensor]:
    """Return a score of each head that can be removed, `(h,)`, by name of the mixer.

    gradient: E |dL / dg_h|, g_h a factor of the head's output, of each sample on its own: the effect of a head on the
    loss, comparable over layers. "Are Sixteen Heads Really Better than One?", section 4.1. Without labels L is a random
    projection of the outputs.
    gradient-l2: the same divided by the length of the layer's scores, as in the paper's code.
    activation: root mean square of the head's contribution, `(E sum_c x_c^2 |W_c|^2)^(1/2)` over its channels c.
    magnitude: the length of its values' weights times that of its columns in the output projection.

    Args:
        model: the model.
        how: `gradient`, `gradient-l2`, `activation`, `magnitude` or `random`.
        probes: batches of data, for the first three.
        seed: seed of random scores.

    Example:
        >>> from vitrail.models import create_model
        >>> scores = head_scores(create_model("vit_tiny_patch16_224", depth=1), "magnitude")
        >>> [tuple(each.shape) for each in scores.values()]
        [(3,)]
    """
    heads = prunable_heads(model)
    scores = layer_scores(model, {f"{name}.proj": count for name, count in heads.items()}, how, probes, seed)
    if how == "magnitude":
        scores = {f"{name}.proj": _head_magnitude(model.get_submodule(name)) for name in heads}
    return {name: _comparable(scores[f"{name}.proj"], how) for name in heads}


def hidden_scores(
    model: nn.Module, how: str, probes: Sequence[CalibrationBatch] = (), seed: int = 0
) -> dict[str, Tensor]:
    """Return a score of each hidden channel, by name of the MLP; see `head_scores`.

    Example:
        >>> from vitrail.models import create_model
        >>> scores = hidden_scores(create_model("vit_tiny_patch16_224", depth=1), "magnitude")
        >>> [tuple(each.shape) for each in scores.values()]
        [(768,)]
    """
    widths = prunable_hidden(model)
    scores = layer_scores(model, {f"{name}.fc2": width for name, width in widths.items()}, how, probes, seed)
    if how == "magnitude":
        scores = {f"{name}.fc2": _hidden_magnitude(model.get_submodule(name)) for name in widths}
    return {name: _comparable(scores[f"{name}.fc2"], how) for name in widths}


def _comparable(scores: Tensor, how: str) -> Tensor:
    """Divide the scores of a layer by their length, unless their size means something beyond the layer."""
    return scores if how == "gradient" else scores / scores.norm().clamp(min=1e-30)


def layer_scores(
    model: nn.Module, inputs: dict[str, int], how: str, probes: Sequence[CalibrationBatch], seed: int
) -> dict[str, Tensor]:
    """Return the scores of groups of the input channels of layers, by name of the layer; all but magnitude."""
    if how in ("gradient", "gradient-l2"):
        return gradient_scores(model, inputs, probes)
    if how == "activation":
        return activation_scores(model, inputs, probes)
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.rand(count, generator=draw) for name, count in inputs.items()}


def gradient_scores(model: nn.Module, inputs: dict[str, int], probes: Sequence[CalibrationBatch]) -> dict[str, Tensor]:
    """Return E |dL / dg| of the gates before layers, by name of the layer."""
    total = {name: torch.zeros(count, dtype=torch.float64) for name, count in inputs.items()}
    for number, probe in enumerate(probes):
        with evaluating(model), gates(model, inputs) as made, torch.enable_grad():
            objective = probe.objective(model, number)
            names = [(name, gate) for name, calls in made.items() for gate in calls]
            found = torch.autograd.grad(objective, [gate for _, gate in names], allow_unused=True)
        for (name, _), gradient in zip(names, found, strict=True):
            if gradient is not None:
                total[name] += gradient.abs().flatten(0, -2).sum(0).double().cpu()
    return total


def activation_scores(
    model: nn.Module, inputs: dict[str, int], probes: Sequence[CalibrationBatch]
) -> dict[str, Tensor]:
    """Return the root mean square of the contribution of each group of a layer's input to its output."""
    squares: dict[str, Any] = dict.fromkeys(inputs, 0.0)
    rows = dict.fromkeys(inputs, 0)

    def add(name: str, x: Tensor) -> None:
        flat = x.flatten(0, -2).double()
        squares[name] = squares[name] + flat.square().sum(0).cpu()
        rows[name] += len(flat)

    with torch.no_grad(), evaluating(model), watched(model, inputs, add):
        for probe in probes:
            probe.run(model)
    scores = {}
    for name, count in inputs.items():
        columns = _columns(model.get_submodule(name)).double().square().sum(0).cpu()
        scores[name] = (squares[name] / max(rows[name], 1) * columns).view(count, -1).sum(1).sqrt()
    return scores


def _columns(layer: Any) -> Tensor:
    return layer.weight.detach()


def _head_magnitude(mixer: Any) -> Tensor:
    """Return the length of each head's value weights times that of its output weights."""
    heads = mixer.num_heads
    name, parts = list(LAYOUTS[type(mixer)].projections.items())[-1]
    path = PROJECTIONS[type(getattr(mixer, name))][0][0]
    owner, last = find(mixer, f"{name}.{path}", 0)
    values = getattr(owner, last).detach().unflatten(0, (parts, heads, -1))[-1]  # (h, d, C)
    out = _columns(mixer.proj).unflatten(1, (heads, -1))  # (C, h, d)
    return (values.flatten(1).norm(dim=1) * out.transpose(0, 1).flatten(1).norm(dim=1)).double().cpu()


def _hidden_magnitude(mixer: Any) -> Tensor:
    parts = next(axis.parts for axis in HIDDEN[type(mixer)] if axis.path == "fc1.weight")
    rows = mixer.fc1.weight.detach().unflatten(0, (parts, -1)).norm(dim=2).prod(0)
    return (rows * _columns(mixer.fc2).norm(dim=0)).double().cpu()
