"""MLP-Mixer: timm and the authors' JAX code."""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import Kernel

BLOCK = "backbone.stages.0.blocks.{i}"
PATCHES = "backbone.embedding.patches.proj.{weight|bias}"
_NORMS = BLOCK + ".{norm1|norm2}.{weight|bias}"
_TOKENS = BLOCK + ".token_mixer.mlp.{fc1|fc2}.{weight|bias}"
_CHANNELS = BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"

_TIMM = (
    Rule("stem.proj.{weight|bias}", PATCHES),
    Rule("blocks.{i}.{norm1|norm2}.{weight|bias}", _NORMS),
    Rule("blocks.{i}.mlp_tokens.{fc1|fc2}.{weight|bias}", _TOKENS),
    Rule("blocks.{i}.mlp_channels.{fc1|fc2}.{weight|bias}", _CHANNELS),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_JAX = (
    Rule("stem/{kernel|bias}", PATCHES, Kernel()),
    Rule("MixerBlock_{i}/{LayerNorm_0|LayerNorm_1}/{scale|bias}", _NORMS),
    Rule("MixerBlock_{i}/token_mixing/{Dense_0|Dense_1}/{kernel|bias}", _TOKENS, Kernel()),
    Rule("MixerBlock_{i}/channel_mixing/{Dense_0|Dense_1}/{kernel|bias}", _CHANNELS, Kernel()),
    Rule("pre_head_layer_norm/{scale|bias}", "backbone.norm.{weight|bias}"),
    Rule("head/{kernel|bias}", "head.linear.{weight|bias}", Kernel()),
)

FORMATS = (
    Format("timm", ("mixer",), _TIMM, ("stem.proj.weight", "blocks.0.mlp_tokens.fc1.weight")),
    Format("official", ("mixer",), _JAX, ("stem/kernel", "MixerBlock_0/token_mixing/Dense_0/kernel")),
)
