"""CCT and CVT: the authors. Patches are a convolution with a bias, layers of convolution have none."""

from vitrail.weights.keymap import Format, Rule

BLOCK = "backbone.stages.0.blocks.{i}"
_BLOCK = "classifier.blocks.{i}"
_OFFICIAL = (
    Rule("tokenizer.conv_layers.{j}.0.weight", "backbone.embedding.patches.convs.{j}.weight"),
    Rule("classifier.positional_emb", "backbone.embedding.steps.0.table"),
    Rule(_BLOCK + ".{pre_norm|norm1}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_BLOCK + ".self_attn.qkv.weight", BLOCK + ".token_mixer.qkv.weight"),
    Rule(_BLOCK + ".self_attn.proj.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_BLOCK + ".{linear1|linear2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("classifier.norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("classifier.attention_pool.{weight|bias}", "head.pool.score.{weight|bias}"),
    Rule("classifier.fc.{weight|bias}", "head.linear.{weight|bias}"),
)
_CVT = (
    Rule("tokenizer.conv_layers.0.0.{weight|bias}", "backbone.embedding.patches.proj.{weight|bias}"),
    *_OFFICIAL[1:],
)

_MARKS = ("classifier.attention_pool.weight", "classifier.blocks.0.pre_norm.weight")
FORMATS = (
    Format("official", ("cct",), _CVT, (*_MARKS, "tokenizer.conv_layers.0.0.bias")),
    Format("official", ("cct",), _OFFICIAL, (*_MARKS, "tokenizer.conv_layers.0.0.weight")),
)
