"""Fewer tokens from block to block, in a plain Transformer that stays as it is.

A stage reduces its tokens between the attention and the MLP of some blocks, and gives each place of the grid its token
back at the end, so that heads, pyramids and decoders read a whole grid.
"""

from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.attend import merge_heads
from vitrail.parts.blocks import Block
from vitrail.parts.stages import Stage
from vitrail.shapes import Heads, Tokens


@dataclass(frozen=True, eq=False)
class ReducedTokens:
    """Layout of tokens of which each stands for some places of a grid.

    Args:
        grid: grid of the places.
        source: token of each place, `(B, N)`.
        sizes: number of places of each token, `(B, M)`; they sum to N.

    Example:
        >>> layout = ReducedTokens.whole(Grid(1, 3), torch.zeros(1, 3, 8))
        >>> layout.tokens, layout.sizes.tolist(), layout.key_padding(torch.zeros(1)) is None
        (3, [[1.0, 1.0, 1.0]], True)
    """

    grid: Grid
    source: Tensor = field(repr=False)
    sizes: Tensor = field(repr=False)

    @classmethod
    def whole(cls, grid: Grid, x: Tensor) -> "ReducedTokens":
        """Return the layout in which every place has its own token."""
        place = torch.arange(grid.tokens, device=x.device).expand(len(x), -1)
        return cls(grid, place, torch.ones(len(x), grid.tokens, device=x.device))

    @property
    def prefix(self) -> int:
        """Tokens without a place, which are never reduced."""
        return self.grid.prefix

    @property
    def tokens(self) -> int:
        """Number of tokens M."""
        return self.sizes.shape[1]

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return None: all keys count once."""
        return None

    def as_grid(self) -> Grid:
        """Return a grid of as many tokens, for blocks that read their number alone."""
        return Grid(1, self.tokens - self.prefix, self.prefix)

    def reduce(self, assignment: "Assignment") -> "ReducedTokens":
        """Return the layout after tokens were pooled."""
        source = assignment.target.gather(1, self.source)
        sizes = self.sizes.new_zeros(len(source), assignment.count).scatter_add_(1, assignment.target, self.sizes)
        return replace(self, source=source, sizes=sizes)

    def restore(self, x: Tokens) -> Tensor:
        """Give each place its token: `(B, M, C)` to `(B, N, C)`."""
        if x.is_cuda:  # the gradient of an index has no fixed order there
            return one_hot(self.source, x.shape[1]).to(x.dtype) @ x
        return x.flatten(0, 1).index_select(0, _flat(self.source, x.shape[1])).unflatten(0, self.source.shape)


class MergedTokens(ReducedTokens):
    """Layout in which a key counts as often as it has places: proportional attention.

    softmax(q k^T / sqrt(d) + log s)

    "Token Merging: Your ViT But Faster", section 3, equation 1.
    """

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return `(B, 1, 1, M)`, the logarithm of the sizes."""
        if self.tokens == self.grid.tokens:
            return None
        return self.sizes.log().to(like.dtype)[:, None, None]  # (B, M) -> (B, 1, 1, M)


class Assignment(NamedTuple):
    """Tokens pooled into fewer: y_m = sum of w_n x_n over n with target m, divided by the sum of w_n.

    Args:
        target: new token of each token, `(B, N)`.
        weights: weight of each token, `(B, N)`.
        count: number of new tokens M.
    """

    target: Tensor
    weights: Tensor
    count: int

    def pool(self, x: Tokens) -> Tensor:
        """Return the pooled tokens, `(B, M, C)`.

        Example:
            >>> two = Assignment(torch.tensor([[0, 1, 1]]), torch.tensor([[1.0, 1.0, 3.0]]), count=2)
            >>> two.pool(torch.tensor([[[5.0], [4.0], [8.0]]])).flatten().tolist()
            [5.0, 7.0]
        """
        total = self.weights.new_zeros(len(x), self.count).scatter_add_(1, self.target, self.weights)
        share = (self.weights / total.gather(1, self.target)).to(x.dtype)
        if x.is_cuda:  # sums of an index have no fixed order there
            return (one_hot(self.target, self.count).to(x.dtype) * share[..., None]).transpose(1, 2) @ x
        rows = x.new_zeros(len(x) * self.count, x.shape[-1])
        rows = rows.index_add(0, _flat(self.target, self.count), (x * share[..., None]).flatten(0, 1))
        return rows.unflatten(0, (len(x), self.count))


@runtime_checkable
class Reduction(Protocol):
    """Which tokens of a block are pooled."""

    layout: type[ReducedTokens]

    def count(self, layout: ReducedTokens) -> int:
        """Return the number that the reduction is about, such as pairs to merge; 0 if no token goes."""
        ...

    def __call__(self, q: Heads, k: Tensor, layout: ReducedTokens) -> Assignment | None:
        """Return the assignment from queries and keys `(B, h, N, d)`, or None if no token goes."""
        ...


class MergeSimilar:
    """Merge the r most similar pairs of tokens: bipartite soft matching.

    Tokens are split into A (even) and B (odd) in their order. Each token of A draws one edge to its most similar token
    of B, by the cosine of their keys (mean over heads). The r most similar edges merge, weighted by sizes.

    "Token Merging: Your ViT But Faster", section 3. The authors' code puts what is left of A before B; here tokens keep
    their order, so that later splits alternate along rows too. Prefix tokens do not merge.

    Args:
        removed: tokens r to remove; at most half of those that can merge.
    """

    layout = MergedTokens

    def __init__(self, removed: int):
        self.removed = removed

    def count(self, layout: ReducedTokens) -> int:
        """Return the pairs to merge."""
        return min(self.removed, (layout.tokens - layout.prefix) // 2)

    def __call__(self, q: Heads, k: Tensor, layout: ReducedTokens) -> Assignment | None:
        """Match by the keys."""
        if not (r := self.count(layout)):
            return None
        target, count = match(k.detach().mean(1), r, layout.prefix)
        return Assignment(target, layout.sizes, count)


class KeepAttended:
    """Keep the tokens that the class token attends to most, and fuse the others into one.

    y = sum of a_n x_n over the others / sum of a_n, with a the class token's attention (mean over heads)

    "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations" (EViT), section 3.2.
    Its sum is not divided by the sum of a_n, and the model is fine-tuned with it; divided, the token has the length
    that a model without fine-tuning expects.

    Args:
        share: share of the cells' tokens to keep, above 0.
    """

    layout = ReducedTokens

    def __init__(self, share: float):
        self.share = share

    def count(self, layout: ReducedTokens) -> int:
        """Return the cells to keep; 0 if fewer than two would go."""
        cells = layout.tokens - layout.prefix
        kept = ceil(cells * self.share)
        return kept if cells - kept > 1 else 0

    def __call__(self, q: Heads, k: Tensor, layout: ReducedTokens) -> Assignment | None:
        """Sort by the attention of the first token."""
        if not (kept := self.count(layout)):
            return None
        scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        attention = scores.float().softmax(-1).mean(1)[:, 0]  # (B, h, 1, N) -> (B, N)
        order = attention[:, layout.prefix :].argsort(dim=1, descending=True, stable=True) + layout.prefix
        stays = torch.ones_like(attention, dtype=torch.bool).scatter(1, order[:, kept:], False)
        count = layout.prefix + kept + 1
        target = (stays.long().cumsum(1) - 1).where(stays, count - 1)
        return Assignment(target, attention.where(~stays, 1.0), count)


class ReducingBlock(Block):
    """Block that reduces its tokens between its branches: `(x, layout) -> (x, layout)`.

    Args:
        block: block of self-attention to replace; do not use it afterwards.
        reduction: which tokens are pooled.
    """

    def __init__(self, block: Block, reduction: Reduction):
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.reduction = reduction
        self.train(block.training)

    def forward(self, x: Tokens, layout: ReducedTokens) -> tuple[Tensor, ReducedTokens]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Mix tokens, pool some of them, mix channels."""
        mixer = self.token_mixer
        q, k, v, bias = mixer.operands(self.norm1(x), layout)  # pyright: ignore[reportCallIssue]
        mixed = mixer.proj(merge_heads(mixer.attend(q, k, v, bias)))  # pyright: ignore[reportCallIssue]
        x = x + self.drop_path(self.scale1(mixed))
        assignment = self.reduction(q, k, layout)
        if assignment is not None:
            x, layout = assignment.pool(x), layout.reduce(assignment)
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x), layout))), layout


class FewerTokensStage(Stage):
    """Base of the stages whose later blocks see fewer tokens, which have no one place in the image."""


class ReducingStage(FewerTokensStage):
    """Stage some of whose blocks reduce their tokens.

    Args:
        stage: stage to replace; do not use it afterwards.
        reductions: of each block; None for those that run as they are, on fewer tokens.
    """

    def __init__(self, stage: Stage, reductions: list[Reduction | None]):
        pairs = zip(stage.blocks, reductions, strict=True)
        blocks = [block if how is None else ReducingBlock(block, how) for block, how in pairs]  # pyright: ignore[reportArgumentType]
        super().__init__(blocks, stage.entry, stage.exit)
        self.train(stage.training)

    def forward(self, x: Tokens, grid: Layout) -> tuple[Tensor, Layout]:
        """Run entry, blocks and exit; the exit gets a token for each place."""
        x, grid = self.entry(x, grid)
        assert isinstance(grid, Grid), grid
        layout: ReducedTokens | None = None
        for block in self.blocks:
            if isinstance(block, ReducingBlock):
                layout = layout or block.reduction.layout.whole(grid, x)
                x, layout = block(x, layout)
            else:
                x = block(x, grid if layout is None else layout.as_grid())
        return self.exit(x if layout is None else layout.restore(x), grid)


def match(metric: Tensor, r: int, prefix: int) -> tuple[Tensor, int]:
    """Match tokens by bipartite soft matching; see `MergeSimilar`.

    Args:
        metric: vectors to compare, `(B, N, d)`.
        r: pairs to merge.
        prefix: first tokens that do not merge.

    Returns:
        The new token of each token, `(B, N)`, and the number of new tokens, N - r.

    Example:
        >>> match(torch.tensor([[[1.0, -1], [0, 1], [1, 1], [0, 2], [3, 0], [4, 1]]]), r=1, prefix=0)
        (tensor([[0, 1, 2, 3, 4, 4]]), 5)
    """
    batch, tokens, _ = metric.shape
    unit = metric / metric.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)  # (B, A, B)
    scores[:, : (prefix + 1) // 2], scores[:, :, : prefix // 2] = -torch.inf, -torch.inf
    best, partner = scores.max(-1)
    merging = best.argsort(dim=1, descending=True, stable=True)[:, :r]
    goes, into = 2 * merging, 2 * partner.gather(1, merging) + 1
    stays = torch.ones(batch, tokens, dtype=torch.long, device=metric.device).scatter(1, goes, 0)
    place = stays.cumsum(1) - 1
    target = torch.arange(tokens, device=metric.device).expand(batch, -1).scatter(1, goes, into)
    return place.gather(1, target), tokens - r


def _flat(index: Tensor, count: int) -> Tensor:
    """Return rows `(B * N,)` of a `(B * count, C)` matrix from an index `(B, N)` into each of its B parts."""
    return (index + count * torch.arange(len(index), device=index.device)[:, None]).flatten()
