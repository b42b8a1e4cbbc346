"""Twins: timm, whose names are the authors'. The PEG of a stage is our second block, so later blocks count one more."""

from vitrail.weights.formats.pvt import PATCHES, official_blocks
from vitrail.weights.keymap import Format, Rule

_BLOCKS = {
    "blocks.{s}.0": "backbone.stages.{s}.blocks.0",
    "blocks.{s}.{i+1}": "backbone.stages.{s}.blocks.{i+2}",
}
_PARTS = ".{proj|norm}.{weight|bias}"
_TIMM = (
    *(rule for theirs, ours in _BLOCKS.items() for rule in official_blocks(theirs, ours)),
    *(
        Rule(theirs + ".attn.qkv.{weight|bias}", ours + ".token_mixer.qkv.{weight|bias}")
        for theirs, ours in _BLOCKS.items()
    ),
    Rule("pos_block.{s}.proj.0.{weight|bias}", "backbone.stages.{s}.blocks.1.conv.{weight|bias}"),
    Rule("patch_embeds.0" + _PARTS, PATCHES + _PARTS),
    Rule("patch_embeds.{s+1}" + _PARTS, "backbone.stages.{s+1}.entry.patches" + _PARTS),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

FORMATS = (Format("timm", ("twins",), _TIMM, ("pos_block.0.proj.0.weight", "patch_embeds.0.proj.weight")),)
