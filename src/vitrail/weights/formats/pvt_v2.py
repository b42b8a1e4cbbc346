"""PVT v2: timm, Hugging Face and the authors. Each stage ends with a norm, ours too."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.formats.pvt import (
    BLOCK,
    ENTRY,
    MIXER,
    PATCHES,
    REDUCTION,
    check_eps,
    huggingface_blocks,
    official_blocks,
    states,
    whole_ratios,
)
from vitrail.weights.keymap import Format, Rule

_EXIT = "backbone.stages.{s}.exit.norm.{weight|bias}"
_CONV = BLOCK + ".channel_mixer.conv.{weight|bias}"
_FIRST = (PATCHES + ".proj.{weight|bias}", "backbone.embedding.steps.0.norm.{weight|bias}")
_LATER = (ENTRY + ".0.reduction.{weight|bias}", ENTRY + ".1.norm.{weight|bias}")


def _patches(first: str, later: str, norm: str) -> tuple[Rule, ...]:
    """Return the rules of patch embeddings: convolution and norm, before the first stage and at each later one."""
    return tuple(
        Rule(f"{theirs}.{part}.{{weight|bias}}", ours)
        for theirs, pair in ((first, _FIRST), (later, _LATER))
        for part, ours in zip(("proj", norm), pair, strict=True)
    )


_TIMM_BLOCK = "stages.{s}.blocks.{i}"
_TIMM = (
    *official_blocks(_TIMM_BLOCK),
    *_patches("patch_embed", "stages.{s+1}.downsample", "norm"),
    Rule(_TIMM_BLOCK + ".mlp.dwconv.{weight|bias}", _CONV),
    Rule("stages.{s}.norm.{weight|bias}", _EXIT),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_OFFICIAL_BLOCK = "block{s+1}.{i}"
_OFFICIAL = (
    *official_blocks(_OFFICIAL_BLOCK),
    *_patches("patch_embed1", "patch_embed{s+2}", "norm"),
    Rule(_OFFICIAL_BLOCK + ".mlp.dwconv.dwconv.{weight|bias}", _CONV),
    Rule("norm{s+1}.{weight|bias}", _EXIT),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_HF = "(pvt_v2.)encoder.layers.{s}"
_HF_BLOCK = _HF + ".blocks.{i}"
_HUGGINGFACE = (
    *huggingface_blocks(_HF_BLOCK + ".attention"),
    *_patches(
        "(pvt_v2.)encoder.layers.0.patch_embedding", "(pvt_v2.)encoder.layers.{s+1}.patch_embedding", "layer_norm"
    ),
    Rule(_HF_BLOCK + ".{layer_norm_1|layer_norm_2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(
        _HF_BLOCK + ".attention.{spatial_reduction|layer_norm}.{weight|bias}", REDUCTION + ".{conv|norm}.{weight|bias}"
    ),
    Rule(_HF_BLOCK + ".attention.proj.{weight|bias}", MIXER + ".proj.{weight|bias}"),
    Rule(_HF_BLOCK + ".mlp.{dense1|dense2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(_HF_BLOCK + ".mlp.dwconv.dwconv.{weight|bias}", _CONV),
    Rule(_HF + ".layer_norm.{weight|bias}", _EXIT),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)


def _config(c: Any) -> dict[str, Any]:
    check_eps(c)
    later = len(c.dims) - 1
    return {
        "architectures": ["PvtV2ForImageClassification"],
        "model_type": "pvt_v2",
        "image_size": [c.preprocess.size, c.preprocess.size],
        "num_channels": c.in_channels,
        "num_encoder_blocks": len(c.dims),
        "depths": list(c.depths),
        "sr_ratios": list(c.sr_ratios),
        "hidden_sizes": list(c.dims),
        "patch_sizes": [7, *[3] * later],
        "strides": [4, *[2] * later],
        "num_attention_heads": list(c.num_heads),
        "mlp_ratios": whole_ratios(c.mlp_ratios),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "linear_attention": c.linear,
        "drop_path_rate": c.drop_path,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as of PVT, and the ratios of linear attention, which has them without effect."""
    ratios = said.get("sr_ratios") if said.get("linear_attention") else None
    return {**states(said), **({"sr_ratios": tuple(ratios)} if isinstance(ratios, list | tuple) else {})}


_FAMILY = ("pvt_v2",)
FORMATS = (
    Format("timm", _FAMILY, _TIMM, ("stages.0.blocks.0.mlp.dwconv.weight", "stages.0.blocks.0.attn.kv.weight")),
    Format("official", _FAMILY, _OFFICIAL, ("patch_embed1.proj.weight", "block1.0.mlp.dwconv.dwconv.weight")),
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        ("(pvt_v2.)encoder.layers.0.blocks.0.mlp.dwconv.dwconv.weight",),
        describe=_config,
        states=_states,
        answers={"reduction_eps": 1e-6},
    ),
)
