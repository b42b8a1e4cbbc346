"""Mean attention distance: how far a head looks, in pixels.

D = mean over queries i of sum over keys j of A[i, j] |p_i - p_j|, with p the centres of the cells in pixels

"An Image is Worth 16x16 Words", figure 7, right, and appendix D.7. Only cells count: the weights of prefix tokens and
padding are dropped and the rest is renormalised. Windows need no N x N matrix: distances are taken group by group.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.explain.blocks import MixingBlock, check_images
from vitrail.explain.geometry import centres
from vitrail.explain.maps import attention_maps
from vitrail.explain.token_map import TokenMap
from vitrail.grid import Grid
from vitrail.tasks.inference import evaluating


class BlockDistance(NamedTuple):
    """How far the heads of one block look.

    Args:
        block: the block.
        pixels: mean distance of each head, `(h,)`.
    """

    block: MixingBlock
    pixels: Tensor


def attention_distance(model: nn.Module, images: Tensor) -> list[BlockDistance]:
    """Measure how far each head of each block looks, on average over images; one block's maps in memory at a time.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        images: prepared images `(B, C, Y, X)`.

    Raises:
        VitrailError: if the model computes no attention.

    Example:
        >>> from vitrail.models import create_model
        >>> [first] = attention_distance(create_model("vit_tiny_patch16_224", depth=1), torch.randn(2, 3, 32, 32))
        >>> first.pixels.shape, bool((first.pixels < 23).all())  # the diagonal is 22.6
        (torch.Size([3]), True)
    """
    check_images(images)
    found: list[BlockDistance] = []

    def measure(map: TokenMap) -> None:
        found.append(BlockDistance(map.block, mean_distance(map).mean(0)))

    with evaluating(model), torch.no_grad(), attention_maps(model, on_map=measure):
        model(images)
    return found


def mean_distance(map: TokenMap) -> Tensor:
    """Measure one block, `(B, h)` in pixels."""
    maps = map.probabilities
    asking, asked = (slots.to(maps.device) - map.grid.prefix for slots in (map.slots, map.keys))  # (G, n), (G, m)
    real = asking >= 0
    places = map.centres.to(maps)
    here, there = places[asking.clamp_min(0)], places[asked.clamp_min(0)]  # (G, n, 2), (G, m, 2)
    apart = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")  # (G, n, m)
    weights = maps * (asked >= 0)[:, None, None, :]
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
    far = (weights * apart[:, None]).sum(-1)  # (B, G, h, n)
    return (far * real[:, None, :]).sum((1, 3)) / real.sum()


def even_distance(image: tuple[int, int], cells: int = 32) -> float:
    """Return the mean distance of two positions in an image: the distance of a head with uniform attention.

    Args:
        image: rows and columns in pixels.
        cells: to a side of the grid on which it is summed up.

    Example:
        >>> round(even_distance((224, 224)))  # 0.5214 of the side
        117
    """
    places = centres(Grid(cells, cells), (1, 1)) * torch.tensor(image) / cells
    return float(torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist").mean())
