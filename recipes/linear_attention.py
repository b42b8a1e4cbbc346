"""A token mixer of one's own, in one file: linear attention in a DeiT, to compare with softmax attention.

    export VITRAIL_MODELS=recipes/linear_attention.py
    vitrail models 'linear*'
    vitrail train photos/ --model linear_tiny

docs/token_mixer.md walks through it. All but the mixer is DeiT's ("Training data-efficient image transformers", 2021,
table 1), so what differs in a comparison is the mixer alone.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import elu

from vitrail.grid import Grid
from vitrail.parts.attend import check_heads, merge_heads, split_heads
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess
from vitrail.shapes import Tokens


class LinearAttention(nn.Module):
    """Attention whose weights are products of features, so that its cost grows with N instead of with its square.

    y_i = phi(q_i)^T S / (phi(q_i)^T z), S = sum_j phi(k_j) v_j^T, z = sum_j phi(k_j), phi(x) = elu(x) + 1

    "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", Katharopoulos et al., 2020,
    section 3.2, over all tokens.

    Args:
        dim: channels C.
        num_heads: heads h.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the tokens."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)  # each (B, h, N, d)
        q, k = elu(q) + 1, elu(k) + 1
        summary = k.transpose(-2, -1) @ v  # (B, h, d, d)
        weight = (q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True)  # (B, h, N, 1)
        return self.proj(merge_heads(q @ summary / weight))


AT_224 = Preprocess()


@dataclass(frozen=True)
class LinearConfig:
    """The numbers of a DeiT with linear attention."""

    dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: LinearConfig) -> Classifier:
    """Assemble the model from its numbers."""
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size),
        [PrefixTokens(c.dim, 1), LearnedPosition(c.dim, Grid(side, side, prefix=1))],
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=LinearAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


VARIANTS = {
    "linear_tiny": LinearConfig(dim=192, depth=12, num_heads=3),
    "linear_small": LinearConfig(dim=384, depth=12, num_heads=6),
}
