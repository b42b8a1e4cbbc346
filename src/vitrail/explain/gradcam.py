"""Grad-CAM: the channels of a block's input, weighted by how much they move the score of a class."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import check_images, choose, mixing_blocks
from vitrail.explain.saliency import class_scores, class_targets
from vitrail.explain.token_map import BlockContext
from vitrail.tasks.inference import evaluating


def gradcam(
    model: nn.Module, images: Tensor, target: int | Tensor | None = None, block: int | str = -1
) -> tuple[BlockContext, Tensor]:
    """Compute Grad-CAM of a class on the normalised input of a block's token mixer.

    L = ReLU(sum over channels c of w_c A_c), w_c = mean over cells of d score / d A_c

    "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", section 3. In a Transformer A is
    the output of the first norm of the last block, as in the package pytorch-grad-cam: after that block only the class
    token moves the score. Prefix tokens are left out.

    Args:
        model: a classifier or a segmenter.
        images: prepared images `(B, C, Y, X)`.
        target: class, or one for each image `(B,)`; by default the one that the model names.
        block: the block, by index, address (`2.1`) or name.

    Returns:
        The block with its grid, and values `(B, H, W)`, each image's scaled to [0, 1].

    Raises:
        VitrailError: there is no such block or class, or the score does not depend on the block.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, image_size=32, num_classes=3).eval()
        >>> type(gradcam(model, torch.randn(1, 3, 32, 32))).__name__
        'tuple'
    """
    check_images(images)
    chosen = choose(mixing_blocks(model), block)
    kept: list[Any] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = arguments[0].detach().requires_grad_() if not arguments[0].requires_grad else arguments[0]
        kept.append((tokens, arguments[1]))
        return (tokens, *arguments[1:])

    hook = chosen.module.register_forward_pre_hook(keep)
    try:
        with evaluating(model), torch.enable_grad():
            scores = class_scores(model(images))
            picked = scores.gather(1, class_targets(scores.detach(), target)[:, None]).sum()
            tokens, grid = kept[0]
            (gradient,) = torch.autograd.grad(picked, tokens, allow_unused=True)
    finally:
        hook.remove()
    if gradient is None:
        raise VitrailError(f"The score does not depend on {chosen.title}. Choose an earlier block.")
    place = BlockContext(chosen, grid, (images.shape[-2], images.shape[-1]))
    values, weights = tokens.detach()[:, grid.prefix :], gradient[:, grid.prefix :].mean(dim=1, keepdim=True)
    cells = (values * weights).sum(-1).clamp_min(0).unflatten(1, (grid.h, grid.w))
    low = cells.amin((1, 2), keepdim=True)
    return place, (cells - low) / ((cells - low).amax((1, 2), keepdim=True) + 1e-7)
