"""Soups: averages of the weights of runs that began from the same weights."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitrail.errors import VitrailError
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model

Kind = TypeVar("Kind", bound=nn.Module)


class GreedySoup(NamedTuple):
    """Result of a greedy soup.

    Args:
        model: the averaged model.
        members: numbers of the averaged models, in the order in which they were added.
        scores: score of each model alone.
        score: score of the soup.
    """

    model: Model
    members: tuple[int, ...]
    scores: tuple[float, ...]
    score: float


def uniform_soup(models: Sequence[Kind], run: Callable[[Kind], object] | None = None) -> Kind:
    """Return a model whose weights are the means of those of all models; integers are those of the first.

    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
    section 2.

    Args:
        models: models of the same variant.
        run: runs a model on training data. Models with BatchNorm need it: the activations of averaged weights have
            statistics of their own, so those are estimated again.

    Raises:
        VitrailError: the models differ in variant, config, edits or outputs, or have BatchNorm and `run` is missing.

    Example:
        >>> models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
        >>> mean = (models[0].weight + models[1].weight) / 2
        >>> bool(torch.allclose(uniform_soup(models).weight, mean))
        True
    """
    check_same(models)
    if run is None and (norms := batch_norms(models[0])):
        raise VitrailError(
            f"{getattr(models[0], 'variant', type(models[0]).__name__)} has {len(norms)} BatchNorm layers, and the mean"
            " of their statistics is not that of the averaged weights.\n"
            "Give data to estimate them from: --data on the command line, `run` in Python."
        )
    soup = deepcopy(models[0])
    soup.load_state_dict(mean_weights([model.state_dict() for model in models]))
    if run is not None:
        estimate_statistics(soup, run)
    return soup


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers that normalise by statistics of the training data.

    Example:
        >>> len(batch_norms(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2))))
        1
    """
    return [one for one in model.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]


def estimate_statistics(model: Kind, run: Callable[[Kind], object]) -> None:
    """Estimate the statistics of all BatchNorm layers again, as plain means over the batches of `run`.

    "Averaging Weights Leads to Wider Optima and Better Generalization", section 3.2. Only these layers are in training
    mode, and only while they compute, so that `run` may evaluate the model as usual.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> estimate_statistics(norm, lambda model: model.eval()(torch.tensor([[1.0], [3.0]])))
        >>> norm.running_mean.tolist(), norm.running_var.tolist(), norm.momentum
        ([2.0], [2.0], 0.1)
    """
    norms = batch_norms(model)
    momenta, hooks = [norm.momentum for norm in norms], list[Any]()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        hooks.append(norm.register_forward_pre_hook(lambda norm, inputs: norm.train() and None))
        hooks.append(norm.register_forward_hook(lambda norm, inputs, output: norm.eval() and None))
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def greedy_soup(
    models: Sequence[Model], score: Callable[[Model], float], run: Callable[[Model], object] | None = None
) -> GreedySoup:
    """Add models from the best to the worst, and keep each whose addition does not lower the score.

    Recipe 1 of the paper; the score is to be measured on held-out data, not on the test split.

    Args:
        models: models of the same variant.
        score: figure of a model, larger is better.
        run: runs a model on training data, see `uniform_soup`.
    """
    check_same(models)
    scores = [score(model) for model in models]
    order = sorted(range(len(models)), key=lambda number: -scores[number])
    members, best = [order[0]], scores[order[0]]
    for number in order[1:]:
        tried = score(uniform_soup([models[i] for i in (*members, number)], run))
        if tried >= best:
            members, best = [*members, number], tried
    chosen = [models[i] for i in members]
    soup = uniform_soup(chosen, run) if len(chosen) > 1 else deepcopy(chosen[0])
    return GreedySoup(soup, tuple(members), tuple(scores), best)


def mean_weights(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of state dicts, summed in fp64.

    Example:
        >>> mean_weights([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}])
        {'w': tensor([1.5000])}
    """
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def _mean(values: list[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def check_same(models: Sequence[nn.Module]) -> None:
    """Check that weights of models may be averaged: the same architecture and the same meaning of the outputs.

    Raises:
        VitrailError: they may not.

    Example:
        >>> check_same([nn.Linear(1, 1)])
        Traceback (most recent call last):
        vitrail.errors.VitrailError: A soup needs at least two models; got 1.
    """
    if len(models) < 2:
        raise VitrailError(f"A soup needs at least two models; got {len(models)}.")
    for model in models:
        check_layers(model, "its weights are needed to average them")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for name in ("variant", "config", "edits", "metadata"):
            one, other = getattr(first, name, None), getattr(model, name, None)
            if one != other:
                raise VitrailError(
                    f"Model {number} has another {name} than the first one, so their weights cannot be averaged.\n"
                    "Average runs of the same model on the same data, begun from the same weights."
                )
