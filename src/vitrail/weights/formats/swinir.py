"""SwinIR: the authors' files, whose keys BasicSR, KAIR and spandrel share (`params` or `params_ema` inside).

Stored attention masks have the size of the training images and depend on nothing learned: they are dropped.
"""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP, RelativeIndex

_THEIRS, _OURS = "layers.{s}.residual_group.blocks.{i}", "backbone.stages.{s}.blocks.{i}"
_TABLE = _OURS + ".token_mixer.position.table"
_RULES = (
    Rule("conv_first.{weight|bias}", "shallow.{weight|bias}"),
    Rule("patch_embed.norm.{weight|bias}", "backbone.embedding.norm.{weight|bias}"),
    Rule(_THEIRS + ".{norm1|norm2}.{weight|bias}", _OURS + ".{norm1|norm2}.{weight|bias}"),
    Rule(_THEIRS + ".attn.{qkv|proj}.{weight|bias}", _OURS + ".token_mixer.{qkv|proj}.{weight|bias}"),
    Rule(_THEIRS + ".attn.relative_position_bias_table", _TABLE),
    Rule(_THEIRS + ".attn.relative_position_index", _TABLE, RelativeIndex(flat=False)),
    Rule(_THEIRS + ".mlp.{fc1|fc2}.{weight|bias}", _OURS + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(_THEIRS + ".attn_mask", (), DROP),
    Rule("layers.{s}.conv.{weight|bias}", "backbone.stages.{s}.conv.{weight|bias}"),
    Rule("layers.{s}.conv.{k}.{weight|bias}", "backbone.stages.{s}.conv.{k}.{weight|bias}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("conv_after_body.{weight|bias}", "fuse.{weight|bias}"),
    Rule("conv_after_body.{k}.{weight|bias}", "fuse.{k}.{weight|bias}"),
    Rule("conv_before_upsample.0.{weight|bias}", "head.before.{weight|bias}"),
    Rule("upsample.{k}.{weight|bias}", "head.steps.{k}.{weight|bias}"),
    Rule("conv_up{k+1}.{weight|bias}", "head.ups.{k}.{weight|bias}"),
    Rule("conv_hr.{weight|bias}", "head.refine.{weight|bias}"),
    Rule("conv_last.{weight|bias}", "head.last.{weight|bias}"),
)

_MARKS = ("conv_first.weight", _THEIRS + ".attn.relative_position_bias_table")
FORMATS = (Format("official", ("swinir",), _RULES, _MARKS),)
