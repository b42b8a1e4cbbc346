"""SigLIP's image towers: timm, with pooling by attention and without."""

from vitrail.weights.formats.vit import PATCHES, timm_blocks
from vitrail.weights.keymap import Format, Rule

_TRUNK = (
    Rule("pos_embed", "backbone.embedding.steps.0.table"),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)
_MAP = (
    *_TRUNK,
    Rule("attn_pool.latent", "head.pool.latent"),
    Rule("attn_pool.{q|kv|proj|norm}.{weight|bias}", "head.pool.{q|kv|proj|mlp_norm}.{weight|bias}"),
    Rule("attn_pool.mlp.{fc1|fc2}.{weight|bias}", "head.pool.mlp.{fc1|fc2}.{weight|bias}"),
)

_FAMILY, _MARKS = ("siglip",), ("pos_embed", "blocks.0.attn.qkv.weight", "norm.weight")
FORMATS = (
    Format("timm", _FAMILY, _MAP, ("attn_pool.latent", *_MARKS)),
    Format("timm", _FAMILY, _TRUNK, _MARKS),
)
