"""Point Transformer (Engel et al.) for parts of shapes: each point reads the sorted local-global features.

"Point Transformer", Engel, Belagiannis and Dietmayer, IEEE Access 2021, section III-E, and the authors' code for
ShapeNet parts, C = 512:

| branch | layers |
|---|---|
| features | shared MLP C/8, C/4, C/2; encoder block of 8 heads |
| local | SortNets; balls of radius 0.3 with 64 points |
| global | set abstraction of the features: 256 points, then 64; encoder block |
| local-global | two decoder blocks: local features read global ones; the last one projects to C/2 |
| points | two decoder blocks: features of the points read the local-global ones; the last one projects to C/4 |
| parts | C/4, C/4, K |

Local features are those of classification (`point_transformer`): one for each point that a SortNet picks. The authors'
code for parts joins the picks of a SortNet into one feature. Clouds are put in lexicographic order first, which fixes
the start of the farthest points and the order inside balls; the answers have the order of the input again.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.layouts import TokenSequence
from vitrail.parts.local_global import (
    LastDecoderBlock,
    LocalGlobalAttention,
    decoder_block,
    encoder_block,
    local_global_attention,
)
from vitrail.parts.point_model import PartModel, canonical_places
from vitrail.parts.set_abstraction import SetAbstraction, paired_abstractions
from vitrail.parts.shared_mlp import SharedMLP, SharedMLPHead
from vitrail.parts.sort_net import LocalFeatures, SortNet
from vitrail.point_sampling import PointSampling

AT_1024 = PointSampling(1024)


@dataclass(frozen=True)
class PointTransformerPartsConfig:
    """The numbers of a Point Transformer for parts; `num_classes` is the number of parts."""

    dim: int = 512
    num_heads: int = 8
    sort_nets: int = 4
    picks: int = 64
    centers: tuple[int, int] = (256, 64)
    radius: float = 0.3
    ball_size: int = 64
    dropout: float = 0.4
    in_channels: int = 3
    num_classes: int = 50
    sampling: PointSampling = AT_1024


class PointTransformerPoints(nn.Module):
    """Points `(B, N, C)` to features of each point that has read the local and global ones, `(B, N, C/4)`.

    Args:
        embedding: shared MLP of the points.
        block: encoder block, whose outputs all branches read.
        local: SortNets and the surroundings of their picks.
        fine: first set abstraction.
        coarse: second one.
        attention: local-global attention.
        decoder: block of the points.
        last: last block of the points.
    """

    def __init__(
        self,
        embedding: nn.Module,
        block: nn.Module,
        local: LocalFeatures,
        fine: SetAbstraction,
        coarse: SetAbstraction,
        attention: LocalGlobalAttention,
        decoder: nn.Module,
        last: nn.Module,
    ):
        super().__init__()
        self.embedding, self.block, self.local = embedding, block, local
        self.fine, self.coarse, self.attention = fine, coarse, attention
        self.decoder, self.last = decoder, last

    def forward(self, points: Tensor) -> Tensor:
        """Return the features in the order of the points."""
        places = canonical_places(points)
        points = points.gather(1, places[..., None].expand_as(points))
        features = self.block(self.embedding(points))
        centres, around = self.coarse(*self.fine(points[..., :3], features))
        memory = self.attention(self.local(points, features), centres, around)
        layout = TokenSequence(points.shape[1], memory=memory)
        found = self.last(self.decoder(features, layout), layout)
        return found.gather(1, places.argsort(dim=1)[..., None].expand_as(found))


def build(config: PointTransformerPartsConfig) -> PartModel:
    """Assemble a Point Transformer for parts from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["point_transformer_engel_parts"])
        >>> sum(value.numel() for value in model.parameters())
        13994793
    """
    c, w = config, config.dim // 16
    half = c.dim // 2
    sort_nets = [SortNet(half, c.picks, (c.dim // 8, w // 2)) for _ in range(c.sort_nets)]
    backbone = PointTransformerPoints(
        SharedMLP((c.in_channels, c.dim // 8, c.dim // 4, half), nn.Mish),
        encoder_block(half, c.num_heads, hidden=4 * c.dim),
        LocalFeatures(sort_nets, c.in_channels, c.dim, c.radius, c.ball_size),
        *paired_abstractions(c.dim, c.centers, half),
        local_global_attention(c.dim, c.num_heads, (4 * c.dim, c.dim), half),
        decoder_block(half, c.num_heads, hidden=4 * c.dim),
        LastDecoderBlock(half, c.num_heads, c.dim, c.dim // 4),
    )
    return PartModel(
        backbone, SharedMLPHead((c.dim // 4, c.dim // 4), c.num_classes, c.dropout, nn.Mish), c.in_channels
    )


VARIANTS = {"point_transformer_engel_parts": PointTransformerPartsConfig()}
