"""Star-Transformer on images: each cell attends to its four neighbours and to a relay node that sees all of them."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.layouts import TokenSequence
from vitrail.parts.token_mixers.star_attention import StarTransformer, own_keys_attention
from vitrail.shapes import Tokens

AROUND = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Rows down and columns right of the cell itself and of its neighbours."""


class GridStarTransformer(StarTransformer):
    """Cells that attend to themselves, their four neighbours, their input and a relay node, several times over.

    h_i = norm(relu(att(h_i, [h_i, h_up, h_down, h_left, h_right, e_i, s]))); s = norm(relu(att(s, [s, h_1, ..., h_N])))

    "Star-Transformer", section 3.2, with the neighbours of a map in place of those of a text: 7 keys a cell, so time
    and memory grow with N. Prefix tokens have no neighbours. Two cells further apart than the depth meet in the relay
    node alone.

    Args:
        dim: channels C.
        num_heads: heads h.
        depth: rounds.

    Example:
        >>> GridStarTransformer(8, num_heads=2)(torch.zeros(2, 1 + 12, 8), Grid(3, 4, prefix=1)).shape
        torch.Size([2, 13, 8])
    """

    def forward(self, x: Tokens, grid: Grid) -> Tokens:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the tokens after all rounds."""
        relay, inputs, present = x.mean(dim=1, keepdim=True), x, present_keys(grid, x.device)
        present = present.expand(len(x), -1, -1)
        for i, (ring, norm) in enumerate(zip(self.ring, self.norms, strict=True)):
            # A token is projected once and then copied to its neighbours: the projection is the same for all of them.
            own, first, node = (ring.kv(part) for part in (x, inputs, relay))  # pyright: ignore[reportCallIssue]
            kv = torch.cat([neighbours(own, grid), torch.stack([first, node.expand_as(first)], dim=2)], dim=2)
            x = norm(own_keys_attention(ring, x, kv, present).relu())
            if i < len(self.relay):
                memory = TokenSequence(1, memory=torch.cat([relay, x], dim=1))
                relay = self.relay_norms[i](self.relay[i](relay, memory).relu())
        return x


def neighbours(x: Tokens, grid: Grid) -> Tensor:
    """Return each token and the cells around it, `(B, N, 5, C)`; zeros where there is none.

    Example:
        >>> neighbours(torch.ones(1, 6, 4), Grid(2, 3)).shape
        torch.Size([1, 6, 5, 4])
    """
    framed = pad(grid.cells(x), (0, 0, 1, 1, 1, 1))  # (B, h + 2, w + 2, C)
    around = [framed[:, 1 + down : 1 + down + grid.h, 1 + right : 1 + right + grid.w] for down, right in AROUND]
    cells = torch.stack(around, dim=3).flatten(1, 2)  # (B, h w, 5, C)
    prefix = pad(x[:, : grid.prefix, None], (0, 0, 0, len(AROUND) - 1))
    return torch.cat([prefix, cells], dim=1)


def present_keys(grid: Grid, device: torch.device) -> Tensor:
    """Return which of the seven keys each token has, `(1, N, 7)`.

    Example:
        >>> present_keys(Grid(1, 2, prefix=1), torch.device("cpu")).int().tolist()
        [[[1, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 0, 1, 1]]]
    """
    rows = torch.arange(grid.h, device=device)[:, None].expand(grid.h, grid.w)
    columns = torch.arange(grid.w, device=device).expand(grid.h, grid.w)
    always = torch.ones_like(rows, dtype=torch.bool)
    around = [always, rows > 0, rows + 1 < grid.h, columns > 0, columns + 1 < grid.w]
    cells = torch.stack([*around, always, always], dim=-1).flatten(0, 1)
    prefix = torch.tensor([True, False, False, False, False, True, True], device=device).expand(grid.prefix, -1)
    return torch.cat([prefix, cells])[None]
