"""SigLIP's image towers: timm, with pooling by attention and without, and Hugging Face, whose GELU is the tanh form."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, cat

from vitrail.weights.formats.igpt import UnbatchedTable
from vitrail.weights.formats.vit import BLOCK, PATCHES, timm_blocks
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, Tensors

_TRUNK = (
    Rule("pos_embed", "backbone.embedding.steps.0.table"),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)
_MAP = (
    *_TRUNK,
    Rule("attn_pool.latent", "head.pool.latent"),
    Rule("attn_pool.{q|kv|proj|norm}.{weight|bias}", "head.pool.{q|kv|proj|mlp_norm}.{weight|bias}"),
    Rule("attn_pool.mlp.{fc1|fc2}.{weight|bias}", "head.pool.mlp.{fc1|fc2}.{weight|bias}"),
)


class PackedPooling:
    """Queries, keys and values of the pooling in one tensor; ours has queries apart from keys and values."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Cut the queries off."""
        rows = len(theirs[0]) // 3
        return tuple(piece.contiguous() for piece in theirs[0].split([rows, 2 * rows]))

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Join them."""
        return (cat(ours),)


_WB, _LAYER = "{weight|bias}", "(vision_model.)encoder.layers.{i}"
_HEAD = "(vision_model.)head."
_HUGGINGFACE = (
    Rule(f"(vision_model.)embeddings.patch_embedding.{_WB}", f"{PATCHES}.proj.{_WB}"),
    Rule("(vision_model.)embeddings.position_embedding.weight", "backbone.embedding.steps.0.table", UnbatchedTable()),
    Rule(f"{_LAYER}.{{layer_norm1|layer_norm2}}.{_WB}", f"{BLOCK}.{{norm1|norm2}}.{_WB}"),
    Rule(
        tuple(f"{_LAYER}.self_attn.{part}_proj.{_WB}" for part in "qkv"), f"{BLOCK}.token_mixer.qkv.{_WB}", Concat(0, 3)
    ),
    Rule(f"{_LAYER}.self_attn.out_proj.{_WB}", f"{BLOCK}.token_mixer.proj.{_WB}"),
    Rule(f"{_LAYER}.mlp.{{fc1|fc2}}.{_WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{_WB}"),
    Rule(f"(vision_model.)post_layernorm.{_WB}", f"backbone.norm.{_WB}"),
    Rule(_HEAD + "probe", "head.pool.latent"),
    Rule(_HEAD + "attention.in_proj_weight", ("head.pool.q.weight", "head.pool.kv.weight"), PackedPooling()),
    Rule(_HEAD + "attention.in_proj_bias", ("head.pool.q.bias", "head.pool.kv.bias"), PackedPooling()),
    Rule(f"{_HEAD}attention.out_proj.{_WB}", f"head.pool.proj.{_WB}"),
    Rule(f"{_HEAD}layernorm.{_WB}", f"head.pool.mlp_norm.{_WB}"),
    Rule(f"{_HEAD}mlp.{{fc1|fc2}}.{_WB}", f"head.pool.mlp.{{fc1|fc2}}.{_WB}"),
    Rule("text_model.{*}", (), DROP),  # the other tower of a whole SigLIP
    Rule("{logit_scale|logit_bias}", (), DROP),
)


_ACTS = {"exact": "gelu", "tanh": "gelu_pytorch_tanh"}


def _config(c: Any) -> dict[str, Any]:
    tower = {
        "model_type": "siglip_vision_model",
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "hidden_act": _ACTS[c.gelu],
        "layer_norm_eps": 1e-6,
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        "vision_use_head": c.pool == "map",
    }
    return {"architectures": ["SiglipVisionModel"], **tower, "vision_config": tower}


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    tower = said.get("vision_config", said)
    gelu = "exact" if tower.get("hidden_act") == "gelu" else "tanh"
    return {"gelu": gelu, **renamed(tower, num_heads="num_attention_heads", image_size="image_size")}


_FAMILY, _MARKS = ("siglip",), ("pos_embed", "blocks.0.attn.qkv.weight", "norm.weight")
FORMATS = (
    Format("timm", _FAMILY, _MAP, ("attn_pool.latent", *_MARKS)),
    Format("timm", _FAMILY, _TRUNK, _MARKS),
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        ("(vision_model.)head.probe", "(vision_model.)encoder.layers.0.self_attn.q_proj.weight"),
        writes=False,
        describe=_config,
        states=_states,
        answers={"gelu": "tanh"},
    ),
)
