"""Which pixels matter: to the answer (saliency), or to one cell of a stage (its effective receptive field)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import backbone_of, check_images
from vitrail.explain.jacobian import jacobian_norm
from vitrail.explain.token_query import Pixel, Query, centre, token_of
from vitrail.grid import Grid
from vitrail.tasks.inference import evaluating


def saliency(
    model: nn.Module,
    images: Tensor,
    target: int | Tensor | None = None,
    samples: int = 8,
    noise: float = 0.15,
    pixel: Pixel | None = None,
) -> Tensor:
    """Show how strongly each pixel moves the score of a class; of a segmenter, its mean score or that of one pixel.

    S = mean over samples of max over channels of |d score / d image|, at the image with noise added

    "Deep Inside Convolutional Networks", section 3, with the noise of "SmoothGrad: removing noise by adding noise".

    Args:
        model: a classifier or a segmenter.
        images: prepared images `(B, C, Y, X)`.
        target: class, or one for each image `(B,)`; by default the one that the model names.
        samples: noisy copies; 1 with `noise=0` is the plain gradient.
        noise: standard deviation of the noise, as a share of the range of values in each image.
        pixel: the pixel of a segmenter whose score is explained; by default the mean over all pixels.

    Returns:
        `(B, Y, X)`, at least 0.

    Raises:
        VitrailError: if the target is no class, or there is no such pixel.

    Example:
        >>> from vitrail.models import create_model
        >>> saliency(create_model("vit_tiny_patch16_224", depth=1), torch.randn(1, 3, 32, 48), samples=1).shape
        torch.Size([1, 32, 48])
    """
    check_images(images)
    with evaluating(model):
        with torch.no_grad():
            scores = class_scores(model(images), pixel)
        target = class_targets(scores, target)

        def score(noisy: Tensor) -> Tensor:
            return class_scores(model(noisy), pixel).gather(1, target[:, None]).sum()

        return _mean_gradient(score, images, samples, noise)


def receptive_field(
    model: nn.Module, images: Tensor, query: Query | None = None, stage: int = -1, probes: int | None = 16
) -> Tensor:
    """Show how strongly each pixel moves one cell of a stage.

    "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", section 2, with
    the norm over the cell's channels.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        images: prepared images `(B, C, Y, X)`.
        query: a cell of the stage, by row and column, a `Pixel` that it covers, or its index (in the last stage among
            the tokens); by default the cell in the centre.
        stage: index of the stage; -1 is the last.
        probes: random directions that estimate the norm; None takes every channel and is exact.

    Returns:
        `(B, Y, X)`, at least 0.

    Raises:
        VitrailError: if there is no such stage or cell.
    """
    check_images(images)
    with evaluating(model), torch.enable_grad():
        images = images.detach().requires_grad_()
        _, last, pyramid = backbone_of(model)(images)
        if not -len(pyramid) <= stage < len(pyramid):
            raise VitrailError(f"There is no stage {stage}: the model has {len(pyramid)}, 0 to {len(pyramid) - 1}.")
        ends = stage in (-1, len(pyramid) - 1)
        grid = last if ends else Grid(*pyramid[stage].shape[1:3])  # a map has no prefix, but an index counts it
        token = token_of(centre(images) if query is None else query, grid, (images.shape[-2], images.shape[-1]))
        if token < grid.prefix:
            raise VitrailError(
                f"Token {token} is no cell: it sits nowhere in the image. Ask for a cell, {grid.prefix} to "
                f"{grid.tokens - 1}, or for the\nanswer: saliency(model, images), or no query."
            )
        vector = pyramid[stage].flatten(1, 2)[:, token - grid.prefix]  # (B, H, W, C) -> (B, C)
        return jacobian_norm(vector, images, probes).sum(1).sqrt()


def class_scores(outputs: Tensor, pixel: Pixel | None = None) -> Tensor:
    """Return one score per class `(B, K)` of logits `(B, K)` or `(B, K, Y, X)`: of a pixel, or the mean over pixels.

    Raises:
        VitrailError: if there is no such pixel.

    Example:
        >>> class_scores(torch.ones(2, 5, 8, 8)).shape
        torch.Size([2, 5])
    """
    if outputs.ndim == 2:
        return outputs
    if pixel is None:
        return outputs.mean((2, 3))
    if not (0 <= pixel.y < outputs.shape[2] and 0 <= pixel.x < outputs.shape[3]):
        rows, columns = outputs.shape[2:]
        raise VitrailError(f"There is no pixel {pixel.y}, {pixel.x}: the model saw {rows} rows and {columns} columns.")
    return outputs[:, :, pixel.y, pixel.x]


def class_targets(scores: Tensor, target: int | Tensor | None) -> Tensor:
    """Return the class of each image, `(B,)`: the given one, or that of the largest score.

    Raises:
        VitrailError: if there is no such class.

    Example:
        >>> class_targets(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), None).tolist()
        [1, 0]
    """
    if target is None:
        return scores.argmax(dim=1)
    target = torch.as_tensor(target, device=scores.device).expand(len(scores))
    if int(target.min()) < 0 or int(target.max()) >= scores.shape[1]:
        raise VitrailError(f"The model has classes 0 to {scores.shape[1] - 1}, got target {target.tolist()}.")
    return target


def _mean_gradient(score: Callable[[Tensor], Tensor], images: Tensor, samples: int, noise: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    total = torch.zeros_like(images[:, 0])
    for _ in range(samples):
        drawn = torch.randn(images.shape, generator=generator).to(images)
        with torch.enable_grad():
            noisy = (images + spread * drawn).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(score(noisy), noisy, allow_unused=True)
        if gradient is None:
            raise VitrailError(
                "No gradient reaches the pixels: the model rounds them (to the colours of a palette), so it has no "
                "saliency.\nTake another way to look inside: --method rollout, maps or influence."
            )
        total += gradient.abs().amax(1)
    return total / samples
