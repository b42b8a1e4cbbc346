"""Heatmaps over the patches of a plain ViT, by attention, gradients, and both; and scores of them by deletion.

Each method returns a value for every patch, `(B, h, w)`; more is more important for the class that is explained.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.jacobian import jacobian_norm
from vitrail.explain.rollout import rollout
from vitrail.explain.saliency import saliency
from vitrail.parts.attend import Attend
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating


@contextmanager
def maps_with_gradients(model: nn.Module) -> Iterator[list[Tensor]]:
    """Compute attention by its maps inside the block, and keep them with their gradients, first layer first.

    Raises:
        VitrailError: the model has no layers of plain softmax attention over one set of tokens.
    """
    leaves = [module for module in model.modules() if type(module) is Attend]
    if not leaves:
        raise VitrailError(
            "Gradients of attention need a model with plain softmax attention in every layer, such as a ViT or DeiT.\n"
            "Give one with --model, or leave --model out for a small ViT that is trained here."
        )
    kept: list[Tensor] = []

    def replace(leaf: Any, given: tuple[Any, ...], output: Tensor) -> Tensor:
        q, k, v, bias = leaf.operands(*given)
        maps = leaf.maps(q, k, bias)
        maps.retain_grad()
        kept.append(maps)
        return maps @ v

    handles = [leaf.register_forward_hook(replace) for leaf in leaves]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _scored(model: nn.Module, images: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return maps and their gradients for the score of a class, `(B, h, N, N)` each."""
    with evaluating(model), torch.enable_grad(), maps_with_gradients(model) as maps:
        scores = model(images.detach().requires_grad_())
        model.zero_grad(set_to_none=True)
        scores.gather(1, target[:, None]).sum().backward()
        found = [(one.detach(), one.grad.detach()) for one in maps if one.grad is not None]
    model.zero_grad(set_to_none=True)
    return found


def last_attention(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Attention of the last layer from the token that the head reads, mean over heads."""
    maps, _ = _scored(model, images, target)[-1]
    return _cells(model, images, _read(model, images, maps.mean(1)))


def attention_rollout(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Attention rollout ("Quantifying Attention Flow in Transformers")."""
    return rollout(model, images)


def gradient_rollout(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Rollout of attention times its gradient, where positive (jacobgil's variant): rows of mean(A * dA)+ + I."""
    rows = None
    for maps, gradients in _scored(model, images, target):
        weights = (maps * gradients).clamp_min(0).mean(1)
        weights = weights + torch.eye(weights.shape[-1])
        weights = weights / weights.sum(-1, keepdim=True)
        rows = weights if rows is None else weights @ rows
    assert rows is not None
    return _cells(model, images, _read(model, images, rows))


def relevance(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Relevance: R <- R + mean((A * dA)+) R ("Generic Attention-model Explainability", equations 5 and 6)."""
    found: Tensor | None = None
    for maps, gradients in _scored(model, images, target):
        weights = (maps * gradients).clamp_min(0).mean(1)
        found = torch.eye(weights.shape[-1]).expand_as(weights) if found is None else found
        found = found + weights @ found
    assert found is not None
    return _cells(model, images, _read(model, images, found))


def gradient_saliency(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """SmoothGrad saliency of the pixels, mean over each patch."""
    pixels = saliency(model, images, target, samples=4)
    h, w = _grid(model, images)
    return torch.nn.functional.adaptive_avg_pool2d(pixels[:, None], (h, w))[:, 0]


def influence(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Influence: norm of the Jacobian of the features that the head reads, by token of the embedding."""
    backbone: Any = model.backbone
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        kept.append(output[0].detach().requires_grad_())
        return kept[0], output[1]

    handle = backbone.embedding.register_forward_hook(keep)
    try:
        with evaluating(model), torch.enable_grad():
            features = model.features(images)
            vector = features.tokens[:, 0] if features.grid.prefix else features.tokens.mean(1)
            norms = jacobian_norm(vector, kept[0], probes=8).sum(-1).sqrt()
    finally:
        handle.remove()
    return _cells(model, images, norms)


def chance(model: Model, images: Tensor, target: Tensor) -> Tensor:
    """Random values: the baseline of every explanation."""
    return torch.rand(len(images), *_grid(model, images), generator=torch.Generator().manual_seed(17))


METHODS: dict[str, Callable[[Model, Tensor, Tensor], Tensor]] = {
    "random": chance,
    "last attention": last_attention,
    "rollout": attention_rollout,
    "gradient rollout": gradient_rollout,
    "relevance": relevance,
    "saliency": gradient_saliency,
    "influence": influence,
}


def _grid(model: Model, images: Tensor) -> tuple[int, int]:
    backbone: Any = model.backbone
    p = backbone.embedding.patches.patch_size
    return -(-images.shape[-2] // p), -(-images.shape[-1] // p)


def _read(model: Model, images: Tensor, rows: Tensor) -> Tensor:
    """Return the row of the token that the head reads, or the mean over cells without a class token."""
    h, w = _grid(model, images)
    return rows[:, 0] if rows.shape[-1] > h * w else rows.mean(1)


def _cells(model: Model, images: Tensor, values: Tensor) -> Tensor:
    """Return the values of the cells `(B, h, w)` of values of all tokens."""
    h, w = _grid(model, images)
    return values[:, values.shape[1] - h * w :].unflatten(1, (h, w))


@torch.no_grad()
def perturbation(model: nn.Module, images: Tensor, heat: Tensor, target: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the probability of the class while patches are deleted, and while they are inserted, `(B, steps + 1)`.

    "RISE: Randomized Input Sampling for Explanation", section 4.1: the most important first; a deleted patch has
    the mean colour of the image. For a good explanation the area under the deletion curve is low, that under the
    insertion curve high.

    Args:
        model: a classifier.
        images: `(B, C, Y, X)`.
        heat: value of each patch `(B, h, w)`.
        target: class of each image.
        steps: steps from none to all patches.
    """
    h, w = heat.shape[1:]
    order = heat.flatten(1).argsort(dim=1, descending=True).argsort(dim=1)  # rank of each patch
    blank = images.mean((2, 3), keepdim=True).expand_as(images)
    deleted, inserted = [], []
    with evaluating(model):
        for step in range(steps + 1):
            first = (order < round(step * h * w / steps)).view(-1, 1, h, w).float()
            mask = torch.nn.functional.interpolate(first, size=images.shape[-2:], mode="nearest")
            for found, keep in ((deleted, 1 - mask), (inserted, mask)):
                scores = model(images * keep + blank * (1 - keep)).softmax(-1)
                found.append(scores.gather(1, target[:, None])[:, 0])
    return torch.stack(deleted, 1), torch.stack(inserted, 1)
