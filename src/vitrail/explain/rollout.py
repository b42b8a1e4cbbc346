"""Attention rollout: attention of the head on the cells of the first grid, through all blocks.

R = A'_L ... A'_1, A' = rows of (mean over heads of A) + I, scaled to sum to one

"Quantifying Attention Flow in Transformers", section 3. Hierarchical models roll out too: a block with windows is a
block matrix, kept as its blocks, and entering a coarser grid is the average of the cells that merge. This is a
first-order proxy: it follows attention probabilities and ignores values, channel mixers and norms.

The product is computed from the head back to the image: each step multiplies a few rows, without an N x N matrix.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import check_images
from vitrail.explain.geometry import owner_of_cells
from vitrail.explain.maps import AttentionMap, attention_maps
from vitrail.explain.token_query import Query
from vitrail.grid import Grid
from vitrail.parts.backbone import Classifier, Features
from vitrail.tasks.inference import evaluating


def rollout(model: nn.Module, images: Tensor, query: Query | None = None) -> Tensor:
    """Roll the attention of all blocks out over the cells of the first grid.

    Args:
        model: a model from `create_model` or `load_model`.
        images: prepared images `(B, C, Y, X)`.
        query: a token of the last grid, by index or by row and column; by default the tokens that the head reads,
            each as strongly as it reads them.

    Returns:
        Share of each cell, `(B, H, W)`; with the share of the prefix tokens they sum to one.

    Raises:
        VitrailError: if the model computes no attention.

    Example:
        >>> from vitrail.models import create_model
        >>> rollout(create_model("vit_tiny_patch16_224", depth=2), torch.randn(1, 3, 32, 48)).shape
        torch.Size([1, 2, 3])
    """
    check_images(images)
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        outputs: Any = getattr(model, "features", model)  # a backbone returns features itself
        features = outputs(images)
    last = maps[-1].grid
    if query is None:
        start, grid = reading(model, features), features.grid  # coarser, if stages without attention follow
    else:
        start, grid = torch.zeros(len(images), last.tokens, device=images.device), last
        start[:, maps[-1].place.token(query)] = 1
    with torch.no_grad():  # maps of learned head mixings are functions of weights
        return maps[0].over_cells(compose(maps, start[:, None], grid)[:, 0])


def compose(maps: Sequence[AttentionMap], start: Tensor | None = None, grid: Grid | None = None) -> Tensor:
    """Multiply the blocks' attention, the last block first.

    Args:
        maps: the maps of one forward pass, first block first.
        start: rows of weights on the tokens of `grid`, `(B, Q, N)`; by default each token of the last block alone.
        grid: grid of `start`; by default that of the last block.

    Returns:
        Weights on the tokens of the first block, `(B, Q, N_first)`; row sums are preserved.
    """
    last = maps[-1]
    if start is None:
        batch = last.probabilities.shape[0]
        start = torch.eye(last.grid.tokens, device=last.probabilities.device).expand(batch, -1, -1)
    rows, grid = start, last.grid if grid is None else grid
    for map in reversed(maps):
        if map.grid != grid:
            rows, grid = unmerge(rows, fine=map.grid, coarse=grid), map.grid
        rows = through(rows, map)
    return rows


def through(rows: Tensor, map: AttentionMap) -> Tensor:
    """Take rows `(B, Q, N)` one block back: `rows @ A'`, group by group, without the attention on padding.

    Tokens that are no queries (cells in class attention) stay as they are.
    """
    attention = map.probabilities.mean(2)  # (B, G, h, n, m) -> (B, G, n, m)
    slots, keys = map.slots.to(rows.device), map.keys.to(rows.device)
    attention = attention * (keys >= 0).to(rows)[:, None, :]
    grouped = rows[..., slots.clamp_min(0)] * (slots >= 0).to(rows)  # (B, Q, G, n)
    grouped = grouped / (attention.sum(-1) + 1)[:, None]
    mixed = torch.einsum("bqgi,bgij->bqgj", grouped, attention)
    queries = map.gathered((slots >= 0).to(rows), slots)  # (N,), 1 for a query
    return map.gathered(mixed, keys) + map.gathered(grouped, slots) + rows * (1 - queries)


def unmerge(rows: Tensor, fine: Grid, coarse: Grid) -> Tensor:
    """Take rows `(B, Q, N_coarse)` back through a merging: a cell shares alike among the cells it was made of.

    The share of prefix tokens that come after the merging (a late class token) is left out: they read no pixel before.

    Example:
        >>> unmerge(torch.tensor([[[1.0]]]), fine=Grid(2, 2), coarse=Grid(1, 1))
        tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    if fine.prefix == 0:
        rows, coarse = rows[..., coarse.prefix :], coarse._replace(prefix=0)
    if fine.prefix != coarse.prefix:
        raise VitrailError(f"Cannot roll out from {coarse} to {fine}: one has prefix tokens that the other lacks.")
    owner = owner_of_cells(fine, coarse).to(rows.device)  # (N_fine,)
    members = torch.bincount(owner, minlength=coarse.tokens).to(rows)
    return (rows / members)[..., owner]


def reading(model: nn.Module, features: Features) -> Tensor:
    """Return how strongly the head reads each token, `(B, N)`, rows summing to one.

    The norm of the gradient of the largest score: the class token alone, all cells alike, or whatever the head does. A
    backbone without a head is read off its first prefix token, or off all cells alike where it has none; the head of a
    dense task reads all cells alike.
    """
    tokens, grid = features.tokens.detach(), features.grid
    if not isinstance(model, Classifier):
        read = torch.zeros(tokens.shape[:2], device=tokens.device)
        first = slice(grid.prefix, None) if hasattr(model, "head") or not grid.prefix else slice(0, 1)
        read[:, first] = 1
    else:
        with evaluating(model), torch.enable_grad():
            tokens = tokens.requires_grad_()
            best = model.head(features._replace(tokens=tokens)).amax(1).sum()
            read = torch.autograd.grad(best, tokens)[0].norm(dim=-1)
    return read / read.sum(-1, keepdim=True)
