"""XCiT: timm; the authors keep queries, keys and values of class attention in one layer, here they are three."""

from vitrail.weights.formats.cait import class_blocks
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import PointwiseConv

_PATCHES, _BLOCK = "backbone.embedding.patches", "backbone.stages.0.blocks.{i}"
_LOCAL = _BLOCK + ".local_mixer"
_NORM = "{weight|bias|running_mean|running_var|num_batches_tracked}"

_TIMM = (
    Rule("cls_token", "backbone.stages.1.entry.tokens"),
    Rule("patch_embed.proj.{2i}.0.weight", _PATCHES + ".convs.{i}.weight"),
    Rule("patch_embed.proj.{2i}.1." + _NORM, _PATCHES + ".norms.{i}." + _NORM),
    Rule("pos_embed.token_projection.{weight|bias}", "backbone.embedding.steps.0.proj.{weight|bias}", PointwiseConv()),
    Rule("blocks.{i}.{norm1|norm2|norm3}.{weight|bias}", _BLOCK + ".{norm1|norm2|norm3}.{weight|bias}"),
    Rule("blocks.{i}.{gamma1|gamma2|gamma3}", _BLOCK + ".{scale1|scale2|scale3}.gamma"),
    Rule("blocks.{i}.attn.temperature", _BLOCK + ".token_mixer.temperature"),
    Rule("blocks.{i}.attn.{qkv|proj}.{weight|bias}", _BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}"),
    Rule("blocks.{i}.local_mp.{conv1|conv2}.{weight|bias}", _LOCAL + ".{conv1|conv2}.{weight|bias}"),
    Rule("blocks.{i}.local_mp.bn." + _NORM, _LOCAL + ".norm." + _NORM),
    Rule("blocks.{i}.mlp.{fc1|fc2}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    *class_blocks("cls_attn_blocks.{i}", "{gamma1|gamma2}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

FORMATS = (Format("timm", ("xcit",), _TIMM, ("blocks.0.local_mp.conv1.weight", "cls_attn_blocks.0.attn.q.weight")),)
