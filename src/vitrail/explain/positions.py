"""Learned positions: similarity of position embeddings, and the relative position bias of each head."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vitrail.errors import VitrailError
from vitrail.explain.blocks import name_of
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.positions import LearnedPosition, RelativePositionBias

_RELATIVE = (RelativePositionBias, LogSpacedPositionBias)


def position_similarity(model: nn.Module) -> Tensor:
    """Compare the learned position of each cell with that of every other.

    S[i, j] = cos(p_i, p_j), cells only

    "An Image is Worth 16x16 Words", figure 7, centre.

    Returns:
        `(H, W, H, W)`: the image `[r, c]` is the similarity of the cell in row r and column c with each cell.

    Raises:
        VitrailError: if the model adds no learned table to its tokens.

    Example:
        >>> from vitrail.models import create_model
        >>> position_similarity(create_model("vit_tiny_patch16_224", depth=1)).shape
        torch.Size([14, 14, 14, 14])
    """
    found = next((module for module in model.modules() if isinstance(module, LearnedPosition)), None)
    if found is None:
        raise VitrailError(
            f"{name_of(model)} has no learned table of positions to compare.\n"
            "`relative_bias(model)` shows relative position biases, where there are any."
        )
    cells = found.grid.cells(found.table.detach().float())[0]  # (H, W, C)
    unit = normalize(cells, dim=-1)
    return torch.einsum("hwc,yxc->hwyx", unit, unit)


def relative_bias(model: nn.Module) -> dict[str, Tensor]:
    """Lay the relative position bias of each block out as images.

    Returns:
        For the name of each position module `(h, 2 H - 1, 2 W - 1)`: a head's addend to the score of a query in the
        centre for a key at each offset; a key to the right of the query is right of the centre.

    Raises:
        VitrailError: if the model has none.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("swin_tiny_patch4_window7_224", depths=(1,), num_heads=(3,))
        >>> [image.shape for image in relative_bias(model).values()]
        [torch.Size([3, 13, 13])]
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, _RELATIVE)}
    if not found:
        raise VitrailError(
            f"{name_of(model)} has no relative position bias.\n"
            "`position_similarity(model)` compares learned positions, where there are any."
        )
    return {name: _picture(module) for name, module in found.items()}


def _picture(position: RelativePositionBias | LogSpacedPositionBias) -> Tensor:
    h, w = position.size
    table = position.table.detach().float().T.unflatten(1, (2 * h - 1, 2 * w - 1))  # (entries, h) -> (h, 2H-1, 2W-1)
    return table.flip(1, 2)  # the table counts query minus key; an image shows where the key is
