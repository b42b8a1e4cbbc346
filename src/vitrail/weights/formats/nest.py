"""NesT: timm, which stores position tables block by block, ours are row by row.

timm's attention also merges the channels of heads in the order (d, h) before the last projection, where all other
models have (h, d); the projection's weights are reordered, which takes the number of heads.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from vitrail.weights.keymap import Format, Rule

if TYPE_CHECKING:
    from vitrail.models.nest import NesTConfig


BLOCK = "backbone.stages.{s}.blocks.{i}"
_TIMM_BLOCK = "levels.{s}.transformer_encoder.{i}"


class BlockTable:
    """A table of positions by block, `(1, T, n, C)`, both of them square; ours is `(1, T n, C)`, row by row."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Put the rows of blocks side by side."""
        table = theirs[0]
        blocks, side = (round(n**0.5) for n in table.shape[1:3])
        cells = table.reshape(1, blocks, blocks, side, side, -1).transpose(2, 3)  # (1, T_y, y, T_x, x, C)
        return (cells.reshape(1, table.shape[1] * table.shape[2], -1),)

    def write(self, *ours: Tensor, config: "NesTConfig") -> tuple[Tensor, ...]:
        """Cut into blocks: as many on a side as the last level, which is one block, has cells fewer."""
        table = ours[0]
        side = -(-config.preprocess.size // (config.patch_size * 2 ** (len(config.dims) - 1)))
        blocks = round(table.shape[1] ** 0.5) // side
        cells = table.reshape(1, blocks, side, blocks, side, -1).transpose(2, 3)  # (1, T_y, T_x, y, x, C)
        return (cells.reshape(1, blocks**2, side**2, -1),)


class HeadsLast:
    """Inputs of a projection in the order (d, h), channel of the head slow; ours is (h, d)."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Pass: without a config the number of heads is not known, and the shape is the same."""
        return theirs

    def read_with(self, *theirs: Tensor, config: "NesTConfig") -> tuple[Tensor, ...]:
        """Put heads before their channels."""
        return (self._swap(theirs[0], config, from_heads=False),)

    def write(self, *ours: Tensor, config: "NesTConfig") -> tuple[Tensor, ...]:
        """Put channels before their heads."""
        return (self._swap(ours[0], config, from_heads=True),)

    def _swap(self, weight: Tensor, config: "NesTConfig", from_heads: bool) -> Tensor:
        dims = dict(zip(config.dims, config.num_heads, strict=True))
        heads = dims.get(len(weight), 1)
        return weight.unflatten(1, (heads, -1) if from_heads else (-1, heads)).transpose(1, 2).flatten(1)


_TIMM = (
    Rule("patch_embed.proj.{weight|bias}", "backbone.embedding.patches.proj.{weight|bias}"),
    Rule("levels.{s}.pos_embed", "backbone.stages.{s}.entry.1.table", BlockTable()),
    Rule("levels.{s+1}.pool.{conv|norm}.{weight|bias}", "backbone.stages.{s+1}.entry.0.{conv|norm}.{weight|bias}"),
    Rule(_TIMM_BLOCK + ".{norm1|norm2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_TIMM_BLOCK + ".attn.qkv.{weight|bias}", BLOCK + ".token_mixer.qkv.{weight|bias}"),
    Rule(_TIMM_BLOCK + ".attn.proj.weight", BLOCK + ".token_mixer.proj.weight", HeadsLast()),
    Rule(_TIMM_BLOCK + ".attn.proj.bias", BLOCK + ".token_mixer.proj.bias"),
    Rule(_TIMM_BLOCK + ".mlp.{fc1|fc2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

FORMATS = (Format("timm", ("nest",), _TIMM, ("levels.0.pos_embed", "levels.0.transformer_encoder.0.attn.qkv.weight")),)
