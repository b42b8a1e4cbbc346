"""A few learned latent vectors that read an array of any length by cross-attention."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads, merge_heads
from vitrail.parts.backbone import Backbone, Features
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.stages import Stage
from vitrail.shapes import Image, Tokens


class CrossLayer(nn.Module):
    """Pre-norm cross-attention of queries to an array, then an MLP of the width of the queries.

    x = x + W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h, with q from norm(x), k and v from norm(array);
    x = x + mlp(norm(x))

    "Perceiver IO: A General Architecture for Structured Inputs & Outputs", section 3.1 and figure 3.

    Args:
        dim: channels C of the queries.
        array_dim: channels of the array.
        inner: channels of queries, keys and values, over all heads.
        num_heads: heads h; d = inner / h.

    Example:
        >>> CrossLayer(8, array_dim=5, inner=6)(torch.randn(2, 3, 8), torch.randn(2, 7, 5)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, dim: int, array_dim: int, inner: int, num_heads: int = 1):
        super().__init__()
        check_heads(inner, num_heads)
        self.num_heads = num_heads
        self.norm1, self.norm_array, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(array_dim), nn.LayerNorm(dim)
        self.q, self.kv = nn.Linear(dim, inner), nn.Linear(array_dim, 2 * inner)
        self.attend = Attend()
        self.proj = nn.Linear(inner, dim)
        self.mlp = MLP(dim, dim)

    def forward(self, x: Tokens, array: Tensor) -> Tokens:
        """Read the array."""
        q = self.q(self.norm1(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, h, N, d)
        k, v = self.kv(self.norm_array(array)).unflatten(-1, (2, self.num_heads, -1)).transpose(1, 3).unbind(2)
        x = x + self.proj(merge_heads(self.attend(q, k, v)))  # k, v: (B, M, 2, h, d) -> (B, h, 2, M, d) -> 2 of them
        return x + self.mlp(self.norm2(x), Grid(1, x.shape[1]))


class LatentEmbedding(nn.Module):
    """Latents that have read the image: `images -> (latents, grid of one row)`.

    "Perceiver: General Perception with Iterative Attention", section 3.1.

    Args:
        inputs: `images -> (B, M, C)`, one row for each pixel or place.
        layer: cross-attention of the latents to them.
        latents: number N of latents.
        dim: channels of a latent.
    """

    def __init__(self, inputs: nn.Module, layer: CrossLayer, latents: int, dim: int):
        super().__init__()
        self.inputs, self.layer = inputs, layer
        self.latents = nn.Parameter(torch.empty(latents, dim))
        nn.init.trunc_normal_(self.latents, std=0.02)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Read the image."""
        return self.read(self.inputs(images))

    def read(self, array: Tensor) -> tuple[Tensor, Grid]:
        """Return latents that have read an array `(B, M, C)`."""
        latents = self.latents.to(array.dtype).expand(array.shape[0], -1, -1)
        return self.layer(latents, array), Grid(1, latents.shape[1])


class RepeatedStage(Stage):
    """A stage whose blocks run several times with the same weights.

    Args:
        blocks: each `(x, grid) -> x`.
        repeats: how often they run.
    """

    def __init__(self, blocks: list[nn.Module], repeats: int):
        super().__init__(blocks)
        self.repeats = repeats

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Run all blocks, several times."""
        for _ in range(self.repeats):
            for block in self.blocks:
                x = block(x, grid)
        return x, grid


class RereadingStage(Stage):
    """A stage whose blocks run several times with the same weights and whose latents reread the array in between.

    "Perceiver: General Perception with Iterative Attention", section 3.1: the weights of all cross-attentions but the
    first, which is the embedding's, are shared, and so are those of the latent Transformers.

    Args:
        blocks: each `(x, grid) -> x`.
        layer: cross-attention of the latents to the array.
        reads: how often the array is read, the embedding's cross-attention included.
    """

    def __init__(self, blocks: list[nn.Module], layer: CrossLayer, reads: int):
        super().__init__(blocks)
        self.layer, self.reads = layer, reads

    def reread(self, x: Tokens, grid: Grid, array: Tensor) -> tuple[Tensor, Grid]:
        """Run the blocks, reread the array, and so on."""
        for read in range(self.reads):
            x = self.layer(x, array) if read else x
            for block in self.blocks:
                x = block(x, grid)
        return x, grid


class IterativeBackbone(Backbone):
    """Backbone of the original Perceiver: latents read the image, think, and read it again.

    Args:
        embedding: the first reading.
        stage: the blocks and all other readings.
        norm: after the stage.
    """

    def __init__(self, embedding: LatentEmbedding, stage: RereadingStage, norm: nn.Module):
        super().__init__(embedding, [stage], norm)

    def forward(self, images: Image) -> Features:
        """Return the latents in one row."""
        embedding: Any = self.embedding
        stage: Any = self.stages[0]
        array = embedding.inputs(images)
        x, grid = stage.reread(*embedding.read(array), array)
        return Features(self.norm(x), grid, (grid.cells(x),))


class QueryHead(nn.Module):
    """One learned query reads the latents, and a linear layer reads the query.

    "Perceiver IO", section 3.2, for classification.

    Args:
        dim: channels of the latents and of the query.
        num_classes: classes K; 0 leaves the layer out.
    """

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, dim))
        self.layer = CrossLayer(dim, dim, dim)
        self.linear = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, features: Features) -> Tensor:
        """Return logits `(B, K)`."""
        return self.linear(self.decode(features.tokens))

    def decode(self, latents: Tokens) -> Tensor:
        """Return the query that has read the latents, `(B, C)`."""
        return self.layer(self.query.to(latents.dtype).expand(latents.shape[0], -1, -1), latents)[:, 0]
