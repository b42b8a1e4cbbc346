"""Set Transformer: attention among the elements of a set, by way of a few inducing points, and pooling by attention.

"Set Transformer: A Framework for Attention-based Permutation-Invariant Neural Networks", Lee et al., 2019, section 5.5
and the authors' code for ModelNet40:

| part | number |
|---|---|
| encoder | 2 ISAB of 256 channels, 4 heads, 16 inducing points |
| decoder | dropout 0.5, PMA with one seed, dropout 0.5, linear |

For clustering and other outputs that are sets, `seeds` is the number of outputs and `decoder_depth` SABs relate them
(section 5.3). A set may be padded: see `SetTransformer.forward`.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from vitrail.layouts import PointSet
from vitrail.parts.point_model import PointModel
from vitrail.parts.set_attention import AttentionPooledSet, InducedSetAttention, SetSelfAttention
from vitrail.point_sampling import PointSampling

AT_1024 = PointSampling(1024)


@dataclass(frozen=True)
class SetTransformerConfig:
    """The numbers of a Set Transformer."""

    dim: int = 256
    encoder_depth: int = 2
    num_heads: int = 4
    inducing_points: int = 16
    seeds: int = 1
    decoder_depth: int = 0
    dropout: float = 0.5
    in_channels: int = 3
    num_classes: int = 40
    sampling: PointSampling = AT_1024


class SetEncoder(nn.Sequential):
    """ISABs, each `(x, layout) -> x`."""

    def forward(self, x: Tensor, layout: PointSet | None = None) -> Tensor:
        """Return `(B, N, C)`."""
        layout = layout or PointSet(x[..., :3])
        for block in self:
            x = block(x, layout)
        return x


class SetDecoder(nn.Module):
    """Seeds that read the set, relate to each other, and give an output each.

    Args:
        pool: `(x, layout) -> (B, seeds, C)`.
        blocks: among the seeds.
        linear: to the outputs.
        dropout: rate before and after them.
    """

    def __init__(self, pool: AttentionPooledSet, blocks: list[nn.Module], linear: nn.Module, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pool, self.blocks, self.linear = pool, nn.ModuleList(blocks), linear

    def forward(self, x: Tensor, layout: PointSet | None = None) -> Tensor:
        """Return `(B, seeds, K)`, or `(B, K)` of one seed."""
        y = self.pool(self.dropout(x), layout or PointSet(x))
        for block in self.blocks:
            y = block(y, PointSet(y))
        y = self.linear(self.dropout(y))
        return y[:, 0] if y.shape[1] == 1 else y


class SetTransformer(PointModel):
    """A Set Transformer of sets that may be padded."""

    def forward(self, points: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return `(B, K)`, or `(B, seeds, K)`.

        Args:
            points: elements `(B, N, C)`.
            lengths: `(B,)` elements of each set, at least 1; the others are padding. None if none is padded.
        """
        if lengths is None:
            return super().forward(points)
        layout = PointSet(points, lengths)
        return self.head(self.backbone(points, layout), layout)


def build(config: SetTransformerConfig) -> SetTransformer:
    """Assemble a Set Transformer from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["set_transformer_modelnet40"])
        >>> sum(value.numel() for value in model.parameters())
        1140264
    """
    c = config
    widths = [c.in_channels] + [c.dim] * c.encoder_depth
    encoder = SetEncoder(*(InducedSetAttention(a, b, c.num_heads, c.inducing_points) for a, b in pairwise(widths)))
    decoder = SetDecoder(
        AttentionPooledSet(c.dim, c.num_heads, c.seeds),
        [SetSelfAttention(c.dim, c.dim, c.num_heads) for _ in range(c.decoder_depth)],
        nn.Linear(c.dim, c.num_classes) if c.num_classes else nn.Identity(),
        c.dropout,
    )
    return SetTransformer(encoder, decoder, c.in_channels)


VARIANTS = {"set_transformer_modelnet40": SetTransformerConfig()}
