"""Tokens dropped by learned predictors: masked in training, where a choice needs a gradient, gone in evaluation.

A stage gives each place of the grid a token at the end: those that were dropped keep the value they had then.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax

from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.attend import merge_heads
from vitrail.parts.blocks import Block
from vitrail.parts.stages import Stage
from vitrail.parts.token_reduction import FewerTokensStage
from vitrail.shapes import Heads, Tokens


class TokenPredictor(nn.Module):
    """Probability that a token is kept, from the token and the mean of those that are left.

    z = MLP(x), half of its channels replaced by their mean over the tokens left; log softmax(MLP(z))

    "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", section 3.2, equations 1 to 4.

    Args:
        dim: channels C.

    Example:
        >>> predictor = TokenPredictor(8)
        >>> predictor(torch.randn(2, 5, 8), torch.ones(2, 5)).exp().sum(-1).allclose(torch.ones(2, 5))
        True
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.read = nn.LayerNorm(dim), nn.Linear(dim, dim)
        half, quarter = max(dim // 2, 1), max(dim // 4, 1)
        self.hidden = nn.Sequential(nn.Linear(dim, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU())
        self.decide = nn.Linear(quarter, 2)
        for layer in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tokens, kept: Tensor) -> Tensor:
        """Return log probabilities of keeping and of dropping, `(B, M, 2)`.

        Args:
            x: tokens of cells, `(B, M, C)`.
            kept: 1 for those that are left, `(B, M)`.
        """
        z = nn.functional.gelu(self.read(self.norm(x)))
        own, shared = z.split([z.shape[-1] - z.shape[-1] // 2, z.shape[-1] // 2], dim=-1)
        weights = kept[..., None].to(z.dtype)
        mean = (shared * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
        return self.decide(self.hidden(torch.cat([own, mean.expand_as(shared)], dim=-1))).log_softmax(-1)


class MaskableBlock(Block):
    """Block of self-attention in which dropped tokens are no keys, but for themselves.

    Args:
        block: block to replace; do not use it afterwards.
    """

    def __init__(self, block: Block):
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.train(block.training)

    def masked(self, x: Tokens, grid: Grid, kept: Tensor) -> Tensor:
        """Mix tokens and channels; `kept` is `(B, N)`, 1 or 0."""
        mixer = self.token_mixer
        q, k, v, _ = mixer.operands(self.norm1(x), grid)  # pyright: ignore[reportCallIssue]
        mixed = mixer.proj(merge_heads(masked_attention(q, k, v, kept)))  # pyright: ignore[reportCallIssue]
        x = x + self.drop_path(self.scale1(mixed))
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x), grid)))


def masked_attention(q: Heads, k: Heads, v: Heads, kept: Tensor) -> Tensor:
    """Attend to the kept keys and to oneself, with a gradient for the choice.

    A_ij = exp(q_i k_j / sqrt(d)) G_ij / sum_j exp(q_i k_j / sqrt(d)) G_ij,  G_ij = 1 if i = j, else kept_j

    DynamicViT, section 3.3, equations 10 and 11. For a kept query it is attention over the kept tokens alone.

    Args:
        q: queries `(B, h, N, d)`.
        k: keys.
        v: values.
        kept: `(B, N)`, 1 or 0.
    """
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).float()
    keys = kept[:, None, None].float()
    gate = keys + (1 - keys) * torch.eye(q.shape[2], device=q.device)
    # The largest score that counts: a dropped key with a large one must not round the others to 0.
    most = scores.detach().masked_fill(gate.detach() == 0, -torch.inf).amax(-1, keepdim=True)
    shares = (scores - most).clamp(max=60).exp() * gate
    return (shares / shares.sum(-1, keepdim=True)).to(v.dtype) @ v


class DynamicStage(FewerTokensStage):
    """Stage that drops tokens before some of its blocks, as predictors choose.

    In training a predictor draws hard choices (Gumbel softmax, straight through) and later blocks mask what is dropped;
    in evaluation it keeps the most probable share, and later blocks are computed on fewer tokens.

    Args:
        stage: stage to replace; do not use it afterwards.
        shares: share of the tokens left that stays before each block; 1 drops none.
        dim: channels C.
        loss_weight: weight of the ratio loss; the authors' is 2.
    """

    def __init__(self, stage: Stage, shares: Sequence[float], dim: int, loss_weight: float = 2.0):
        first = next((i for i, share in enumerate(shares) if share < 1), len(shares))
        blocks = [block if i < first else MaskableBlock(block) for i, block in enumerate(stage.blocks)]  # pyright: ignore[reportArgumentType]
        super().__init__(blocks, stage.entry, stage.exit)
        self.shares, self.loss_weight = tuple(shares), loss_weight
        self.predictors = nn.ModuleDict({str(i): TokenPredictor(dim) for i, s in enumerate(shares) if s < 1})
        self._losses: list[Tensor] = []
        like = next(stage.parameters())
        self.to(like.device).train(stage.training)

    def forward(self, x: Tokens, grid: Layout) -> tuple[Tensor, Layout]:
        """Run entry, blocks and exit; the exit gets a token for each place."""
        x, grid = self.entry(x, grid)
        assert isinstance(grid, Grid), grid
        return self.exit(self._masked(x, grid) if self.training else self._dropped(x, grid), grid)

    def _masked(self, x: Tensor, grid: Grid) -> Tensor:
        """Mask tokens from block to block, and note the ratio losses."""
        prefix, kept, left, losses = grid.prefix, None, 1.0, []
        blocks: list[Any] = list(self.blocks)
        for index, (block, share) in enumerate(zip(blocks, self.shares, strict=True)):
            if share < 1:
                cells = x[:, prefix:]
                before = cells.new_ones(cells.shape[:2]) if kept is None else kept[:, prefix:]
                chances = self.predictors[str(index)](cells, before)
                chosen = gumbel_softmax(chances.float(), hard=True)[..., 0] * before
                kept = torch.cat([chosen.new_ones(len(x), prefix), chosen], dim=1)
                left *= share
                losses.append((chosen.mean(1) - left).square().mean())
            x = block(x, grid) if kept is None else block.masked(x, grid, kept)
        self._losses += [self.loss_weight * torch.stack(losses).mean()] if losses else []
        return x

    def _dropped(self, x: Tensor, grid: Grid) -> Tensor:
        """Drop tokens from block to block; return a token for each place."""
        whole = places = None
        left, prefix = 1.0, grid.prefix
        for index, (block, share) in enumerate(zip(self.blocks, self.shares, strict=True)):
            if share < 1:
                left *= share
                count = max(int(left * grid.h * grid.w + 1e-9), 1)
                whole = x if places is None or whole is None else _scattered(whole, places, x)
                chosen = self._most_probable(index, x[:, prefix:], count, prefix)
                places = chosen if places is None else places.gather(1, chosen)
                x = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
            x = block(x, grid if places is None else Grid(1, x.shape[1] - prefix, prefix))
        return x if places is None or whole is None else _scattered(whole, places, x)

    def _most_probable(self, index: int, cells: Tensor, count: int, prefix: int) -> Tensor:
        """Return the tokens that stay, prefix first, in their order: `(B, prefix + count)`."""
        chances = self.predictors[str(index)](cells, cells.new_ones(cells.shape[:2]))[..., 0]
        best = chances.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values + prefix
        first = torch.arange(prefix, device=cells.device).expand(len(cells), -1)
        return torch.cat([first, best], dim=1)

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted ratio loss of the latest training forward pass, and forget it; 0 without one.

        mean over the predictors and images of (share kept - share wanted)^2, DynamicViT, equation 15
        """
        losses, self._losses = self._losses, []
        return torch.stack(losses).sum() if losses else next(self.parameters()).new_zeros(())


def _scattered(whole: Tensor, places: Tensor, x: Tensor) -> Tensor:
    """Return all tokens with those of some places replaced."""
    return whole.scatter(1, places[..., None].expand_as(x), x.to(whole.dtype))
