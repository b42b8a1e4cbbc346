"""PoolFormer: timm, the authors and Hugging Face.

Their MLPs are 1 x 1 convolutions, ours are linear layers. timm normalises after the last pooling and the others before;
the weights of that norm go to `backbone.norm`, and `load_weights` puts them where the model has it.
"""

from collections.abc import Mapping
from typing import Any

from vitrail.errors import VitrailError
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import PointwiseConv

BLOCK = "backbone.stages.{s}.blocks.{i}"
ENTRY = "backbone.stages.{s+1}.entry.reduction.{weight|bias}"
STEM = "backbone.embedding.patches.proj.{weight|bias}"
_MLP = BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"
_NORMS = BLOCK + ".{norm1|norm2}.{weight|bias}"
_SCALES = BLOCK + ".{scale1|scale2}.gamma"

_TIMM_BLOCK = "stages.{s}.blocks.{i}"
_TIMM = (
    Rule("stem.conv.{weight|bias}", STEM),
    Rule(_TIMM_BLOCK + ".{norm1|norm2}.{weight|bias}", _NORMS),
    Rule(_TIMM_BLOCK + ".{layer_scale1|layer_scale2}.scale", _SCALES),
    Rule(_TIMM_BLOCK + ".mlp.{fc1|fc2}.{weight|bias}", _MLP, PointwiseConv()),
    Rule("stages.{s+1}.downsample.conv.{weight|bias}", ENTRY),
    Rule("head.norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.fc.{weight|bias}", "head.linear.{weight|bias}"),
)

# The authors number stages and mergings in one sequence: 0, 2, 4, 6 the stages, 1, 3, 5 the mergings.
_OFFICIAL_BLOCK = "network.{2s}.{i}"
_OFFICIAL = (
    Rule("patch_embed.proj.{weight|bias}", STEM),
    Rule(_OFFICIAL_BLOCK + ".{norm1|norm2}.{weight|bias}", _NORMS),
    Rule(_OFFICIAL_BLOCK + ".{layer_scale_1|layer_scale_2}", _SCALES),
    Rule(_OFFICIAL_BLOCK + ".mlp.{fc1|fc2}.{weight|bias}", _MLP, PointwiseConv()),
    Rule("network.{2s+1}.proj.{weight|bias}", ENTRY),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_HF = "(poolformer.)encoder."
_HF_BLOCK = _HF + "block.{s}.{i}"
_HUGGINGFACE = (
    Rule(_HF + "patch_embeddings.0.projection.{weight|bias}", STEM),
    Rule(_HF + "patch_embeddings.{s+1}.projection.{weight|bias}", ENTRY),
    Rule(_HF_BLOCK + ".{before_norm|after_norm}.{weight|bias}", _NORMS),
    Rule(_HF_BLOCK + ".{layer_scale_1|layer_scale_2}", _SCALES),
    Rule(_HF_BLOCK + ".output.{conv1|conv2}.{weight|bias}", _MLP, PointwiseConv()),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)


def _config(c: Any) -> dict[str, Any]:
    if c.pooling != "official":
        raise VitrailError(
            f"transformers' PoolFormer normalises before the last pooling; this one (pooling={c.pooling}) does after.\n"
            "Its weights would give other answers there: write for timm, or take them as the authors' model does with\n"
            "--set pooling=official."
        )
    later = len(c.dims) - 1
    return {
        "architectures": ["PoolFormerForImageClassification"],
        "model_type": "poolformer",
        "num_channels": c.in_channels,
        "num_encoder_blocks": len(c.dims),
        "hidden_sizes": list(c.dims),
        "depths": list(c.depths),
        "patch_sizes": [7, *[3] * later],
        "strides": [4, *[2] * later],
        "padding": [2, *[1] * later],
        "pool_size": 3,
        "mlp_ratio": c.mlp_ratio,
        "hidden_act": "gelu",
        "use_layer_scale": True,
        "layer_scale_init_value": c.layer_scale,
        "drop_path_rate": c.drop_path,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, drop_path="drop_path_rate", mlp_ratio="mlp_ratio", layer_scale="layer_scale_init_value")


_FAMILY = ("poolformer",)
FORMATS = (
    Format(
        "timm",
        _FAMILY,
        _TIMM,
        ("stem.conv.weight", "stages.0.blocks.0.layer_scale1.scale"),
        answers={"pooling": "timm"},
    ),
    Format("official", _FAMILY, _OFFICIAL, ("patch_embed.proj.weight", "network.0.0.layer_scale_1")),
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        ("(poolformer.)encoder.block.0.0.layer_scale_1",),
        describe=_config,
        states=_states,
    ),
)
