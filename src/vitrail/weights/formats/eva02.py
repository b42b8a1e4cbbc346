"""EVA-02: timm, with one projection to queries, keys and values (Ti, S) or three (B, L)."""

from vitrail.weights.formats.vit import BLOCK, PATCHES
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import Concat

_WB, _QKV, _MLP = "{weight|bias}", BLOCK + ".token_mixer.qkv", BLOCK + ".channel_mixer"
_TRUNK = (
    Rule("cls_token", "backbone.embedding.steps.0.tokens"),
    Rule("pos_embed", "backbone.embedding.steps.1.table"),
    Rule(f"patch_embed.proj.{_WB}", f"{PATCHES}.proj.{_WB}"),
    Rule(f"blocks.{{i}}.{{norm1|norm2}}.{_WB}", f"{BLOCK}.{{norm1|norm2}}.{_WB}"),
    Rule(f"blocks.{{i}}.attn.proj.{_WB}", f"{BLOCK}.token_mixer.proj.{_WB}"),
    Rule(f"blocks.{{i}}.mlp.fc2.{_WB}", f"{_MLP}.fc2.{_WB}"),
    Rule(f"fc_norm.{_WB}", f"backbone.norm.{_WB}"),
    Rule(f"head.{_WB}", f"head.linear.{_WB}"),
)
_PACKED = (
    *_TRUNK,
    Rule("blocks.{i}.attn.qkv.weight", _QKV + ".linear.weight"),
    Rule("blocks.{i}.attn.{q_bias|v_bias}", _QKV + ".{q_bias|v_bias}"),
    Rule(f"blocks.{{i}}.mlp.fc1.{_WB}", f"{_MLP}.fc1.{_WB}"),
)
_SPLIT = (
    *_TRUNK,
    Rule(tuple(f"blocks.{{i}}.attn.{part}_proj.weight" for part in "qkv"), _QKV + ".linear.weight", Concat(0, 3)),
    Rule("blocks.{i}.attn.{q_proj|v_proj}.bias", _QKV + ".{q_bias|v_bias}"),
    Rule(tuple(f"blocks.{{i}}.mlp.{part}.{_WB}" for part in ("fc1_g", "fc1_x")), f"{_MLP}.fc1.{_WB}", Concat(0, 2)),
    Rule(f"blocks.{{i}}.mlp.norm.{_WB}", f"{_MLP}.norm.{_WB}"),
)

_FAMILY = ("eva02",)
FORMATS = (
    Format("timm", _FAMILY, _PACKED, ("blocks.0.attn.q_bias", "blocks.0.mlp.fc1.weight", "cls_token")),
    Format("timm", _FAMILY, _SPLIT, ("blocks.0.attn.q_proj.weight", "blocks.0.mlp.fc1_g.weight", "cls_token")),
)
