"""ViT and DeiT without distillation: timm, torchvision, Hugging Face and the authors' JAX code."""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.operations import DROP, OLD_NAME, Concat, FlaxOut, FlaxQKV, Kernel

BLOCK = "backbone.stages.0.blocks.{i}"
TOKENS, POSITION, PATCHES = "backbone.embedding.steps.0.tokens", "backbone.embedding.steps.1.table", "backbone.embedding.patches"

# The blocks are named alike for ViT, for DeiT's two tokens and behind a ResNet, so the other files take these rules.
TIMM_BLOCKS = (
    Rule("blocks.{i}.{norm1|norm2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule("blocks.{i}.attn.{qkv|proj}.{weight|bias}", BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}"),
    Rule("blocks.{i}.mlp.{fc1|fc2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
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
    *TIMM_BLOCKS,
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
    Rule(_TV_LAYER + ".mlp.{linear_1|linear_2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}", OLD_NAME),
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

_JAX_BLOCK = "Transformer/encoderblock_{i}/"
_JAX_ATTENTION = _JAX_BLOCK + "MultiHeadDotProductAttention_1/"
_JAX = (
    Rule("cls", TOKENS),
    Rule("Transformer/posembed_input/pos_embedding", POSITION),
    Rule("embedding/{kernel|bias}", PATCHES + ".proj.{weight|bias}", Kernel()),
    Rule(_JAX_BLOCK + "{LayerNorm_0|LayerNorm_2}/{scale|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(
        tuple(_JAX_ATTENTION + part + "/{kernel|bias}" for part in ("query", "key", "value")),
        BLOCK + ".token_mixer.qkv.{weight|bias}",
        FlaxQKV(),
    ),
    Rule(_JAX_ATTENTION + "out/kernel", BLOCK + ".token_mixer.proj.weight", FlaxOut()),
    Rule(_JAX_ATTENTION + "out/bias", BLOCK + ".token_mixer.proj.bias"),
    Rule(
        _JAX_BLOCK + "MlpBlock_3/{Dense_0|Dense_1}/{kernel|bias}",
        BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}",
        Kernel(),
    ),
    Rule("Transformer/encoder_norm/{scale|bias}", "backbone.norm.{weight|bias}"),
    Rule("head/{kernel|bias}", "head.linear.{weight|bias}", Kernel()),
)

_FAMILIES = ("vit", "deit")
FORMATS = (
    Format("timm", _FAMILIES, _TIMM, ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")),
    Format("torchvision", _FAMILIES, _TORCHVISION, ("class_token", "conv_proj.weight", "encoder.pos_embedding")),
    Format(
        "huggingface",
        _FAMILIES,
        _HF_EMBEDDINGS + huggingface_blocks("vit"),
        ("(vit.)embeddings.cls_token", "(vit.)encoder.layer.0.attention.attention.query.weight"),
    ),
    Format(
        "transformers",
        _FAMILIES,
        _HF_EMBEDDINGS + transformers_blocks("vit"),
        ("(vit.)embeddings.cls_token", "(vit.)layers.0.attention.q_proj.weight"),
        writes=False,
    ),
    Format("official", ("deit",), _TIMM, ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")),
    Format("official", ("vit",), _JAX, ("cls", "embedding/kernel", "Transformer/encoderblock_0/LayerNorm_0/scale")),
)
