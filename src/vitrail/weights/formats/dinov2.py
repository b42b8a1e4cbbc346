"""DINOv2: timm, the authors and Hugging Face's towers, without and with registers."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.formats.vit import BLOCK, PATCHES, timm_blocks
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, FoldedClassPlace, PrefixSections

_FIRST, _SECOND = "backbone.embedding.steps.0.", "backbone.embedding.steps.1."
_TRUNK = (
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("blocks.{i}.{ls1|ls2}.gamma", BLOCK + ".{scale1|scale2}.gamma"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)
_PLAIN = (Rule("cls_token", _FIRST + "tokens"), Rule("pos_embed", _SECOND + "table"), *_TRUNK)
_TIMM_REGISTERS = (
    Rule(("cls_token", "reg_token"), _SECOND + "tokens", PrefixSections()),
    Rule("pos_embed", _FIRST + "table"),
    *_TRUNK,
)
_AUTHORS = (  # the token of masked patches, and the layers of SwiGLU by their own names
    Rule("mask_token", (), DROP),
    Rule("blocks.{i}.mlp.{w12|w3}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)
_REGISTERS = (
    Rule(("cls_token", "register_tokens", "pos_embed"), (_SECOND + "tokens", _FIRST + "table"), FoldedClassPlace()),
    *_TRUNK,
    *_AUTHORS,
)

_HF = "(dinov2.|dinov2_with_registers.)"
_WB, _HF_LAYER, _MIXER = "{weight|bias}", _HF + "encoder.layer.{i}", BLOCK + ".token_mixer"


def _transformers(query: str, key: str, value: str, proj: str) -> tuple[Rule, ...]:
    """Return the rules of the tower under the names of files or of models in memory, which differ in the attention."""
    attention = _HF_LAYER + ".attention."
    return (
        Rule(f"{_HF}embeddings.mask_token", (), DROP),
        Rule(f"{_HF}embeddings.patch_embeddings.projection.{_WB}", f"{PATCHES}.proj.{_WB}"),
        Rule(f"{_HF_LAYER}.{{norm1|norm2}}.{_WB}", f"{BLOCK}.{{norm1|norm2}}.{_WB}"),
        Rule(f"{_HF_LAYER}.layer_scale{{1|2}}.lambda1", f"{BLOCK}.scale{{1|2}}.gamma"),
        Rule(tuple(f"{attention}{part}.{_WB}" for part in (query, key, value)), f"{_MIXER}.qkv.{_WB}", Concat(0, 3)),
        Rule(f"{attention}{proj}.{_WB}", f"{_MIXER}.proj.{_WB}"),
        Rule(f"{_HF_LAYER}.mlp.{{fc1|fc2}}.{_WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{_WB}"),
        Rule(f"{_HF_LAYER}.mlp.{{weights_in|weights_out}}.{_WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{_WB}"),
        Rule(
            tuple(f"{_HF_LAYER}.mlp.{part}.{_WB}" for part in ("gate_proj", "up_proj")),
            f"{BLOCK}.channel_mixer.fc1.{_WB}",
            Concat(0, 2),
        ),
        Rule(f"{_HF_LAYER}.mlp.down_proj.{_WB}", f"{BLOCK}.channel_mixer.fc2.{_WB}"),
        Rule(f"{_HF}layernorm.{_WB}", f"backbone.norm.{_WB}"),
    )


_HF_PLAIN = (
    Rule(f"{_HF}embeddings.cls_token", _FIRST + "tokens"),
    Rule(f"{_HF}embeddings.position_embeddings", _SECOND + "table"),
)
_HF_REGISTERS = (
    Rule(
        tuple(f"{_HF}embeddings.{part}" for part in ("cls_token", "register_tokens", "position_embeddings")),
        (_SECOND + "tokens", _FIRST + "table"),
        FoldedClassPlace(),
    ),
)


def _config(c: Any) -> dict[str, Any]:
    registers = {"num_register_tokens": c.registers} if c.registers else {}
    return {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_swiglu_ffn": c.channel_mixer == "swiglu",
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        **registers,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    mixer = {"channel_mixer": "swiglu" if said["use_swiglu_ffn"] else "mlp"} if "use_swiglu_ffn" in said else {}
    return {**renamed(said, num_heads="num_attention_heads", image_size="image_size"), **mixer}


_NAMES = {
    "huggingface": ("attention.query", "attention.key", "attention.value", "output.dense"),
    "transformers": ("q_proj", "k_proj", "v_proj", "o_proj"),
}

_FAMILY, _SCALE = ("dinov2",), "blocks.0.ls1.gamma"
FORMATS = (
    Format("timm", _FAMILY, _PLAIN, ("cls_token", "pos_embed", _SCALE)),
    Format("timm", _FAMILY, _TIMM_REGISTERS, ("reg_token", _SCALE)),
    Format("official", _FAMILY, (*_PLAIN, *_AUTHORS), ("cls_token", "mask_token", _SCALE), writes=False),
    Format("official", _FAMILY, _REGISTERS, ("register_tokens", _SCALE), writes=False),
    *(
        Format(
            name,
            _FAMILY,
            (*embeddings, *_transformers(*parts)),
            (
                f"{_HF}embeddings.{mark}",
                f"{_HF}encoder.layer.0.layer_scale1.lambda1",
                f"{_HF}encoder.layer.0.attention.{parts[0]}.weight",
            ),
            writes=False,
            describe=_config,
            states=_states,
        )
        for name, parts in _NAMES.items()
        for embeddings, mark in ((_HF_PLAIN, "mask_token"), (_HF_REGISTERS, "register_tokens"))
    ),
)
