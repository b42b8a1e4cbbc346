"""Influence of each token on each other token in any mixer, with or without attention.

J[i, j] = |d y_i / d x_j|, the norm over channels of one part of the block's Jacobian, rows scaled to sum to one.

For pooling and convolution this shows the fixed neighbourhood, for a token MLP the learned weights, for attention also
the influence of a key through the scores. It is local: the Jacobian of a nonlinear mixer depends on the images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import MixingBlock, backbone_of, check_images, choose, mixing_blocks
from vitrail.explain.jacobian import jacobian_norm
from vitrail.explain.token_map import BlockContext, TokenMap
from vitrail.explain.token_query import Query, centre
from vitrail.grid import Grid
from vitrail.tasks.inference import evaluating

LARGEST = 1024
"""Tokens up to which the influence of all on all is computed; one query's row is computed at any size."""


class InfluenceMap(TokenMap):
    """The influence of all tokens on all tokens in one block; one group, one head.

    Args:
        place: block, grid and image size.
        norms: Jacobian norms `(B, N, N)`, not scaled.
    """

    def __init__(self, place: BlockContext, norms: Tensor):
        super().__init__(place, torch.arange(place.grid.tokens)[None])
        self.norms = norms

    @property
    def probabilities(self) -> Tensor:
        """Relative influence of each token on a token, `(B, 1, 1, N, N)`; rows sum to one."""
        return shares(self.norms)[:, None, None]


def influence_maps(
    model: nn.Module, images: Tensor, blocks: Sequence[int | str] | None = None, probes: int | None = 4
) -> list[InfluenceMap]:
    """Compute the influence of each token on each other token, block by block.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        images: prepared images `(B, C, Y, X)`.
        blocks: which blocks, by index, address (`2.1`) or name; all by default.
        probes: random directions of the output that estimate each norm; None takes every channel and is exact. One is
            exact already where channels do not mix (pooling, token MLP).

    Raises:
        VitrailError: if a block has more than `LARGEST` tokens; use `influence_rows` for one query there.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("swin_tiny_patch4_window7_224", depths=(1,), num_heads=(3,))
        >>> [map] = influence_maps(model, torch.randn(1, 3, 16, 16), probes=1)
        >>> map.dense().shape
        torch.Size([1, 1, 16, 16])
    """
    found = []
    for place, x, y in _runs(model, images, blocks):
        n = place.grid.tokens
        if n > LARGEST:
            raise VitrailError(
                f"{place.block.name} mixes {n} tokens: the influence of all on all needs {n} backward passes.\n"
                f"Ask for one query with influence_rows(model, images, query), for blocks of at most {LARGEST} tokens\n"
                "(blocks=[-1] is the coarsest), or give smaller images."
            )
        rows = [jacobian_norm(y[:, i], x, probes).sum(-1).sqrt() for i in range(n)]
        found.append(InfluenceMap(place, torch.stack(rows, dim=1)))
    return found


def influence_rows(
    model: nn.Module,
    images: Tensor,
    query: Query | None = None,
    blocks: Sequence[int | str] | None = None,
    probes: int | None = 8,
) -> list[tuple[BlockContext, Tensor]]:
    """Measure how much each token moves one token, block by block, at any size of the grid.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        images: prepared images `(B, C, Y, X)`.
        query: the token that is moved; a `Pixel` means the same place on every grid. By default the cell in the centre.
        blocks: which blocks, by index, address (`2.1`) or name; all by default.
        probes: as in `influence_maps`.

    Returns:
        For each block where it ran, and the shares `(B, N)`, which sum to one.
    """
    query = centre(images) if query is None else query
    return [
        (place, shares(jacobian_norm(y[:, place.token(query)], x, probes).sum(-1).sqrt()))
        for place, x, y in _runs(model, images, blocks)
    ]


def shares(norms: Tensor) -> Tensor:
    """Scale the last dimension to sum to one; where nothing moves, all share alike.

    Example:
        >>> shares(torch.tensor([[1.0, 3.0], [0.0, 0.0]])).tolist()
        [[0.25, 0.75], [0.5, 0.5]]
    """
    total = norms.sum(-1, keepdim=True)
    return torch.where(total > 0, norms / total.clamp_min(1e-30), 1.0 / norms.shape[-1])


def _runs(
    model: nn.Module, images: Tensor, which: Sequence[int | str] | None
) -> Iterator[tuple[BlockContext, Tensor, Tensor]]:
    """Run the model, then each chosen block alone: its place, its input `(B, N, C)`, its output with a graph."""
    check_images(images)
    blocks = mixing_blocks(model)
    chosen = blocks if which is None else [choose(blocks, one) for one in which]
    image = (images.shape[-2], images.shape[-1])
    with evaluating(model):
        with _listening(chosen) as heard, torch.no_grad():
            backbone_of(model)(images)
        for block in chosen:
            x, grid = heard[block]
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                yield BlockContext(block, grid, image), x, block.module(x, grid)


@contextmanager
def _listening(blocks: Sequence[MixingBlock]) -> Iterator[dict[MixingBlock, tuple[Tensor, Grid]]]:
    heard: dict[MixingBlock, tuple[Tensor, Grid]] = {}

    def keep(block: MixingBlock, x: Tensor, grid: Grid) -> None:
        heard[block] = (x.detach(), grid)

    def hook(block: MixingBlock) -> Any:
        return block.module.register_forward_pre_hook(
            lambda _, args, named: keep(block, *args, **named), with_kwargs=True
        )

    handles = [hook(block) for block in blocks]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
