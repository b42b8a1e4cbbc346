"""Swin2SR: Hugging Face, and the authors' files (`params` or `params_ema` inside).

Stored masks, offsets and indices depend on nothing learned: they are dropped.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, OLD_NAME, Concat, Drop

_BLOCK = "backbone.stages.{s}.blocks.{i}"
_MIXER = _BLOCK + ".token_mixer"


class _Upsampling:
    """Convolutions of the upsampler, which transformers names in three ways; one of them is written."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Take the tensor as it is."""
        return theirs

    def write(self, *ours: Tensor, config: Any) -> tuple[Tensor, ...]:
        """Return the tensor.

        Raises:
            VitrailError: transformers names the tensors of such a model otherwise.
        """
        if config.upsampler in ("none", "pixelshuffledirect") or config.scale == 3:
            raise VitrailError(
                f"Swin2SR with upsampler={config.upsampler} at scale {config.scale} is not written for transformers,"
                " which names its tensors otherwise.\nSave it as a model folder: vitrail.save_model."
            )
        return ours


_LAYER = "(swin2sr.)encoder.stages.{s}.layers.{i}"
_SELF = _LAYER + ".attention.self"
_HUGGINGFACE = (
    Rule("(swin2sr.)first_convolution.{weight|bias}", "shallow.{weight|bias}"),
    Rule("(swin2sr.)embeddings.patch_embeddings.projection.{weight|bias}", "backbone.embedding.proj.{weight|bias}"),
    Rule("(swin2sr.)embeddings.patch_embeddings.layernorm.{weight|bias}", "backbone.embedding.norm.{weight|bias}"),
    Rule(_LAYER + ".{layernorm_before|layernorm_after}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(
        tuple(f"{_SELF}.{part}.weight" for part in ("query", "key", "value")),
        _MIXER + ".qkv.linear.weight",
        Concat(0, 3),
    ),
    Rule(_SELF + ".{query|value}.bias", _MIXER + ".qkv.{q_bias|v_bias}"),
    Rule(_SELF + ".logit_scale", _MIXER + ".qk_norm.log_scale"),
    Rule(_SELF + ".continuous_position_bias_mlp.{j}.{weight|bias}", _MIXER + ".position.mlp.{j}.{weight|bias}"),
    Rule(_SELF + ".{relative_coords_table|relative_position_index}", (), DROP),
    Rule(_LAYER + ".attention.output.dense.{weight|bias}", _MIXER + ".proj.{weight|bias}"),
    Rule(_LAYER + ".{intermediate|output}.dense.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("(swin2sr.)encoder.stages.{s}.conv.{weight|bias}", "backbone.stages.{s}.conv.0.{weight|bias}"),
    Rule(
        "(swin2sr.)encoder.stages.{s}.patch_embed.projection.{weight|bias}", "backbone.stages.{s}.conv.1.{weight|bias}"
    ),
    Rule("(swin2sr.)layernorm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("(swin2sr.)conv_after_body.{weight|bias}", "fuse.{weight|bias}"),
    Rule("upsample.conv_before_upsample.{weight|bias}", "head.before.{weight|bias}"),
    Rule("upsample.upsample.convolution_{k}.{weight|bias}", "head.steps.{2k}.{weight|bias}", _Upsampling()),
    Rule("upsample.conv.{weight|bias}", "head.steps.0.{weight|bias}", OLD_NAME),
    Rule("upsample.conv_up{k+1}.{weight|bias}", "head.ups.{k}.{weight|bias}"),
    Rule("upsample.conv_hr.{weight|bias}", "head.refine.{weight|bias}"),
    Rule("(upsample.)final_convolution.{weight|bias}", "head.last.{weight|bias}", _Upsampling()),
)


class _OffsetsOf8(Drop):
    """Table of offsets, which shows the side of the windows; no weight depends on it."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Drop it.

        Raises:
            VitrailError: it is of another window than that of all published models.
        """
        side = (theirs[0].shape[1] + 1) // 2
        if side != 8:
            raise VitrailError(
                f"This Swin2SR has windows of {side}; files of the authors are read for windows of 8, as all that they"
                " published.\nBuild it and load its weights: create_model(name, window_size=...)."
            )
        return ()


_THEIRS = "layers.{s}.residual_group.blocks.{i}"
_OFFICIAL = (
    Rule("conv_first.{weight|bias}", "shallow.{weight|bias}"),
    Rule("patch_embed.{proj|norm}.{weight|bias}", "backbone.embedding.{proj|norm}.{weight|bias}"),
    Rule(_THEIRS + ".{norm1|norm2}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_THEIRS + ".attn.qkv.weight", _MIXER + ".qkv.linear.weight"),
    Rule(_THEIRS + ".attn.{q_bias|v_bias}", _MIXER + ".qkv.{q_bias|v_bias}"),
    Rule(_THEIRS + ".attn.logit_scale", _MIXER + ".qk_norm.log_scale"),
    Rule(_THEIRS + ".attn.cpb_mlp.{j}.{weight|bias}", _MIXER + ".position.mlp.{j}.{weight|bias}"),
    Rule(_THEIRS + ".attn.relative_coords_table", (), _OffsetsOf8()),
    Rule(_THEIRS + ".attn.relative_position_index", (), DROP),
    Rule(_THEIRS + ".attn.proj.{weight|bias}", _MIXER + ".proj.{weight|bias}"),
    Rule(_THEIRS + ".mlp.{fc1|fc2}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(_THEIRS + ".attn_mask", (), DROP),
    Rule("layers.{s}.conv.{weight|bias}", "backbone.stages.{s}.conv.0.{weight|bias}"),
    Rule("layers.{s}.patch_embed.proj.{weight|bias}", "backbone.stages.{s}.conv.1.{weight|bias}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("conv_after_body.{weight|bias}", "fuse.{weight|bias}"),
    Rule("conv_before_upsample.0.{weight|bias}", "head.before.{weight|bias}"),
    Rule("upsample.{k}.{weight|bias}", "head.steps.{k}.{weight|bias}"),
    Rule("conv_up{k+1}.{weight|bias}", "head.ups.{k}.{weight|bias}"),
    Rule("conv_hr.{weight|bias}", "head.refine.{weight|bias}"),
    Rule("conv_last.{weight|bias}", "head.last.{weight|bias}"),
)


def _config(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["Swin2SRForImageSuperResolution"],
        "model_type": "swin2sr",
        "image_size": 64,
        "patch_size": 1,
        "num_channels": c.in_channels,
        "num_channels_out": c.in_channels,
        "embed_dim": c.dim,
        "depths": list(c.depths),
        "num_heads": [c.num_heads] * len(c.depths),
        "window_size": c.window_size,
        "mlp_ratio": c.mlp_ratio,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
        "drop_path_rate": c.drop_path,
        "upscale": c.scale,
        "img_range": c.pixel_range,
        "resi_connection": "1conv",
        "upsampler": "" if c.upsampler == "none" else c.upsampler,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    if said.get("upsampler") == "pixelshuffle_aux":
        raise VitrailError("This Swin2SR has upsampler pixelshuffle_aux, which is not built; the other four are.")
    if "upsampler" in said and not said["upsampler"] and said.get("num_channels", 3) == 3:
        raise VitrailError(
            "This Swin2SR has no upsampler: there transformers adds the RGB mean twice, and its images would"
            " differ from ours,\nwhich follow the authors. Take the authors' file."
        )
    return renamed(said, window_size="window_size", pixel_range="img_range", drop_path="drop_path_rate")


_SCALE = ".logit_scale"
FORMATS = (
    Format(
        "huggingface",
        ("swin2sr",),
        _HUGGINGFACE,
        ("(swin2sr.)first_convolution.weight", _SELF + _SCALE),
        describe=_config,
        states=_states,
    ),
    Format("official", ("swin2sr",), _OFFICIAL, ("conv_first.weight", _THEIRS + ".attn" + _SCALE)),
)
