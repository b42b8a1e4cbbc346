"""ViT and DeiT without distillation: timm, torchvision, Hugging Face and the authors' JAX code."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, OLD_NAME, Concat, FlaxOut, FlaxQKV, Kernel

if TYPE_CHECKING:
    from vitrail.models.vit import ViTConfig


BLOCK = "backbone.stages.0.blocks.{i}"
TOKENS, POSITION = "backbone.embedding.steps.0.tokens", "backbone.embedding.steps.1.table"
PATCHES = "backbone.embedding.patches"

# ViT, DeiT and the hybrid with a ResNet name their blocks alike, so the other files import these rules.


def timm_blocks(ours: str = BLOCK) -> tuple[Rule, ...]:
    """Return the rules of an encoder in timm, which keeps the names of DeiT's authors."""
    return (
        Rule("blocks.{i}.{norm1|norm2}.{weight|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule("blocks.{i}.attn.{qkv|proj}.{weight|bias}", ours + ".token_mixer.{qkv|proj}.{weight|bias}"),
        Rule("blocks.{i}.mlp.{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    )


def jax_blocks(ours: str = BLOCK) -> tuple[Rule, ...]:
    """Return the rules of an encoder in the authors' JAX code."""
    theirs = "Transformer/encoderblock_{i}/"
    attention = theirs + "MultiHeadDotProductAttention_1/"
    separate = tuple(attention + part + "/{kernel|bias}" for part in ("query", "key", "value"))
    mlp = theirs + "MlpBlock_3/{Dense_0|Dense_1}/{kernel|bias}"
    return (
        Rule(theirs + "{LayerNorm_0|LayerNorm_2}/{scale|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule(separate, ours + ".token_mixer.qkv.{weight|bias}", FlaxQKV()),
        Rule(attention + "out/kernel", ours + ".token_mixer.proj.weight", FlaxOut()),
        Rule(attention + "out/bias", ours + ".token_mixer.proj.bias"),
        Rule(mlp, ours + ".channel_mixer.{fc1|fc2}.{weight|bias}", Kernel()),
        Rule("Transformer/encoder_norm/{scale|bias}", "backbone.norm.{weight|bias}"),
        Rule("head/{kernel|bias}", "head.linear.{weight|bias}", Kernel()),
    )


def huggingface_blocks(model: str) -> tuple[Rule, ...]:
    """Return the rules of an encoder in Hugging Face's files, whose keys begin with `model`."""
    theirs = f"({model}.)encoder.layer.{{i}}"
    separate = tuple(f"{theirs}.attention.attention.{part}.{{weight|bias}}" for part in ("query", "key", "value"))
    return (
        Rule(theirs + ".{layernorm_before|layernorm_after}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(separate, BLOCK + ".token_mixer.qkv.{weight|bias}", Concat(0, 3)),
        Rule(theirs + ".attention.output.dense.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
        Rule(theirs + ".{intermediate|output}.dense.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule(f"({model}.)layernorm.{{weight|bias}}", "backbone.norm.{weight|bias}"),
    )


def transformers_blocks(model: str) -> tuple[Rule, ...]:
    """Return the same for the names that a model has in memory since transformers 5."""
    theirs = f"({model}.)layers.{{i}}"
    separate = tuple(f"{theirs}.attention.{part}_proj.{{weight|bias}}" for part in "qkv")
    return (
        Rule(theirs + ".{layernorm_before|layernorm_after}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(separate, BLOCK + ".token_mixer.qkv.{weight|bias}", Concat(0, 3)),
        Rule(theirs + ".attention.o_proj.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
        Rule(theirs + ".mlp.{fc1|fc2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule(f"({model}.)layernorm.{{weight|bias}}", "backbone.norm.{weight|bias}"),
    )


_TIMM = (
    Rule("cls_token", TOKENS),
    Rule("pos_embed", POSITION),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_TV_LAYER = "encoder.layers.encoder_layer_{i}"
_TORCHVISION = (
    Rule("class_token", TOKENS),
    Rule("encoder.pos_embedding", POSITION),
    Rule("conv_proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    Rule(_TV_LAYER + ".{ln_1|ln_2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_TV_LAYER + ".self_attention.in_proj_{weight|bias}", BLOCK + ".token_mixer.qkv.{weight|bias}"),
    Rule(_TV_LAYER + ".self_attention.out_proj.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_TV_LAYER + ".mlp.{0|3}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(
        _TV_LAYER + ".mlp.{linear_1|linear_2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}", OLD_NAME
    ),
    Rule("encoder.ln.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("heads.head.{weight|bias}", "head.linear.{weight|bias}"),
)

_HF_EMBEDDINGS = (
    Rule("(vit.)embeddings.cls_token", TOKENS),
    Rule("(vit.)embeddings.position_embeddings", POSITION),
    Rule("(vit.)embeddings.patch_embeddings.projection.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    Rule("(vit.)pooler.dense.{weight|bias}", (), DROP),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)


def transformers_config(c: "ViTConfig") -> dict[str, Any]:
    """Return the fields in which transformers states a ViT or a DeiT."""
    return {
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "intermediate_size": int(c.dim * c.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": getattr(c, "norm_eps", 1e-6),
        "qkv_bias": True,
        "image_size": -(-c.preprocess.size // c.patch_size) * c.patch_size,
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
    }


def transformers_states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of such a config that shapes do not determine."""
    eps = {"layer_norm_eps": 1e-12, **said}  # the default of transformers
    return renamed(eps, num_heads="num_attention_heads", image_size="image_size", norm_eps="layer_norm_eps")


def _vit_config(c: Any) -> dict[str, Any]:
    return {"architectures": ["ViTForImageClassification"], "model_type": "vit", **transformers_config(c)}


_JAX = (
    Rule("cls", TOKENS),
    Rule("Transformer/posembed_input/pos_embedding", POSITION),
    Rule("embedding/{kernel|bias}", PATCHES + ".proj.{weight|bias}", Kernel()),
    *jax_blocks(),
)

_FAMILIES = ("vit", "deit")
_TIMM_MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
FORMATS = (
    Format("timm", _FAMILIES, _TIMM, _TIMM_MARKS),
    Format("torchvision", _FAMILIES, _TORCHVISION, ("class_token", "conv_proj.weight", "encoder.pos_embedding")),
    Format(
        "huggingface",
        _FAMILIES,
        _HF_EMBEDDINGS + huggingface_blocks("vit"),
        ("(vit.)embeddings.cls_token", "(vit.)encoder.layer.0.attention.attention.query.weight"),
        describe=_vit_config,
        states=transformers_states,
    ),
    Format(
        "transformers",
        _FAMILIES,
        _HF_EMBEDDINGS + transformers_blocks("vit"),
        ("(vit.)embeddings.cls_token", "(vit.)layers.0.attention.q_proj.weight"),
        writes=False,
        describe=_vit_config,
        states=transformers_states,
    ),
    Format("official", ("deit",), _TIMM, _TIMM_MARKS),
    Format("official", ("vit",), _JAX, ("cls", "embedding/kernel", "Transformer/encoderblock_0/LayerNorm_0/scale")),
)
