"""Principal components of the filters of the first convolution (patch embedding or stem).

"An Image is Worth 16x16 Words", figure 7, left.
"""

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import backbone_of, name_of


def principal_filters(model: nn.Module, count: int = 28) -> Tensor:
    """Return the principal components of the first convolution's filters, strongest first.

    Each is a direction of unit length in the space of filters; its sign means nothing.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        count: how many at most; there are never more than filters or values in a filter.

    Returns:
        `(components, C, p, p)`.

    Raises:
        VitrailError: if no convolution sees the image.

    Example:
        >>> from vitrail.models import create_model
        >>> principal_filters(create_model("vit_tiny_patch16_224", depth=1)).shape
        torch.Size([28, 3, 16, 16])
    """
    weight = patch_filters(model)
    flat = weight.flatten(1)  # (filters, C, p, p) -> (filters, C p p)
    components = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh
    return components[:count].unflatten(1, weight.shape[1:])


def patch_filters(model: nn.Module) -> Tensor:
    """Return the filters of the first convolution, `(filters, C, p, p)`.

    Example:
        >>> from vitrail.models import create_model
        >>> patch_filters(create_model("vit_tiny_patch16_224", depth=1)).shape
        torch.Size([192, 3, 16, 16])
    """
    for module in backbone_of(model).embedding.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().float()
    raise VitrailError(f"{name_of(model)} has no convolution in its embedding, so there are no patch filters to show.")
