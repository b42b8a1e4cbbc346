"""Soups: averages of the weights of runs that began from the same weights."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.errors import VitrailError


class GreedySoup(NamedTuple):
    """Result of a greedy soup.

    Args:
        model: the averaged model.
        members: numbers of the averaged models, in the order in which they were added.
        scores: score of each model alone.
        score: score of the soup.
    """

    model: Any
    members: tuple[int, ...]
    scores: tuple[float, ...]
    score: float


def uniform_soup(models: Sequence[Any]) -> Any:
    """Return a model whose weights are the means of those of all models; integers are those of the first.

    "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
    section 2.

    Raises:
        VitrailError: the models differ in variant, config, edits or outputs.
    """
    check_same(models)
    soup = deepcopy(models[0])
    soup.load_state_dict(mean_weights([model.state_dict() for model in models]))
    return soup


def greedy_soup(models: Sequence[Any], score: Callable[[Any], float]) -> GreedySoup:
    """Add models from the best to the worst, and keep each whose addition does not lower the score.

    Recipe 1 of the paper; the score is to be measured on held-out data, not on the test split.

    Args:
        models: models of the same variant.
        score: figure of a model, larger is better.
    """
    check_same(models)
    scores = [score(model) for model in models]
    order = sorted(range(len(models)), key=lambda number: -scores[number])
    members, best = [order[0]], scores[order[0]]
    for number in order[1:]:
        tried = score(uniform_soup([models[i] for i in (*members, number)]))
        if tried >= best:
            members, best = [*members, number], tried
    return GreedySoup(uniform_soup([models[i] for i in members]), tuple(members), tuple(scores), best)


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


def check_same(models: Sequence[Any]) -> None:
    """Check that weights of models may be averaged: the same architecture and the same meaning of the outputs.

    Raises:
        VitrailError: they may not.
    """
    if len(models) < 2:
        raise VitrailError(f"A soup needs at least two models; got {len(models)}.")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for name in ("variant", "config", "edits", "metadata"):
            one, other = getattr(first, name, None), getattr(model, name, None)
            if one != other:
                raise VitrailError(
                    f"Model {number} has another {name} than the first one, so their weights cannot be averaged.\n"
                    "Average runs of the same model on the same data, begun from the same weights."
                )
