"""Small image GPT that generates: pixels as words of a few colours, each predicted from those before it.

"Generative Pretraining from Pixels", Chen et al., 2020, section 3, in the sizes and details of teddykoker/image-gpt,
whose weights on MNIST and Fashion-MNIST are published:

| model | C | layers | heads | colours | pixels |
|---|---|---|---|---|---|
| xxs | 16 | 8 | 2 | 16 | 28 x 28 |
| xs | 64 | 8 | 4 | 16 | 28 x 28 |

Details that are easy to get wrong: a block begins with a norm of the residual stream itself, norms have means and
biases, GELU is exact, and the head has a table of its own. `imagegpt_*` (family igpt) are OpenAI's models, which
classify.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.pixel_model import PixelModel
from vitrail.parts.sequence_model import SequenceBackbone
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.stream_norm_block import InputNormBlock
from vitrail.parts.text_embedding import TextEmbedding
from vitrail.parts.text_heads import UntiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention


@dataclass(frozen=True)
class PixelGPTConfig:
    """The numbers of an image GPT that generates."""

    dim: int
    depth: int
    num_heads: int
    colors: int = 16
    channels: int = 1
    side: int = 28
    mlp_ratio: float = 4.0

    @property
    def max_length(self) -> int:
        """Positions: one for each pixel."""
        return self.side**2


def build(config: PixelGPTConfig) -> PixelModel:
    """Assemble an image GPT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["pixel_gpt_xxs"])
        >>> sum(value.numel() for value in model.parameters())
        39344
    """
    c = config
    blocks = [
        InputNormBlock(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=CausalAttention(c.dim, c.num_heads, attend=CausalAttend()),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        )
        for _ in range(c.depth)
    ]
    embedding = TextEmbedding(c.colors + 1, c.dim, [SequencePosition(c.dim, c.max_length)])
    backbone = SequenceBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim))
    model = PixelModel(backbone, UntiedHead(c.dim, c.colors), c.colors, c.channels)
    initialise_as_bert(model)
    return model


VARIANTS = {
    "pixel_gpt_xxs": PixelGPTConfig(dim=16, depth=8, num_heads=2),
    "pixel_gpt_xs": PixelGPTConfig(dim=64, depth=8, num_heads=4),
}
