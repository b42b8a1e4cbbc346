"""Swin: timm, torchvision, Hugging Face, the authors and mmpretrain.

All but timm keep the merging at the end of stage s; timm and we keep it at the start of stage s + 1. Stored masks and
indices depend on nothing learned: they are dropped, and the index is computed where a library insists on having it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitrail.errors import VitrailError
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, RelativeIndex, UnfoldOrder

if TYPE_CHECKING:
    from vitrail.models.swin import SwinConfig

BLOCK = "backbone.stages.{s}.blocks.{i}"
ENTRY = "backbone.stages.{s+1}.entry"
PATCHES = "backbone.embedding.patches"
TABLE = BLOCK + ".token_mixer.position.table"


def _blocks(theirs: str, fc1: str = "mlp.fc1", fc2: str = "mlp.fc2", attention: str = "attn") -> tuple[Rule, ...]:
    """Return the rules of the blocks for libraries that keep queries, keys and values together."""
    fc = f"{{{fc1}|{fc2}}}"
    return (
        Rule(theirs + ".{norm1|norm2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(f"{theirs}.{attention}.{{qkv|proj}}.{{weight|bias}}", BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}"),
        Rule(f"{theirs}.{attention}.relative_position_bias_table", TABLE),
        Rule(f"{theirs}.{fc}.{{weight|bias}}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule(theirs + ".attn_mask", (), DROP),
    )


def merging(theirs: str) -> tuple[Rule, ...]:
    """Return the rules of patch merging for the authors' order of the four places."""
    return (
        Rule(theirs + ".norm.{weight|bias}", ENTRY + ".norm.{weight|bias}"),
        Rule(theirs + ".reduction.weight", ENTRY + ".reduction.weight"),
    )


def outer_rules(proj: str, patch_norm: str, norm: str, head: str) -> tuple[Rule, ...]:
    """Return the rules of the layers before the first stage and after the last."""
    return (
        Rule(proj + ".{weight|bias}", PATCHES + ".proj.{weight|bias}"),
        Rule(patch_norm + ".{weight|bias}", PATCHES + ".norm.{weight|bias}"),
        Rule(norm + ".{weight|bias}", "backbone.norm.{weight|bias}"),
        Rule(head + ".{weight|bias}", "head.linear.{weight|bias}"),
    )


_TIMM_BLOCK = "layers.{s}.blocks.{i}"
_TIMM = (
    *outer_rules("patch_embed.proj", "patch_embed.norm", "norm", "head.fc"),
    *_blocks(_TIMM_BLOCK),
    Rule(_TIMM_BLOCK + ".attn.relative_position_index", (), DROP),
    *merging("layers.{s+1}.downsample"),
)

OFFICIAL_RULES = (
    *outer_rules("patch_embed.proj", "patch_embed.norm", "norm", "head"),
    *_blocks(_TIMM_BLOCK),
    Rule(_TIMM_BLOCK + ".attn.relative_position_index", TABLE, RelativeIndex(flat=False)),
    *merging("layers.{s}.downsample"),
)

# torchvision numbers patches, stages and mergings in one sequence: 0, then 1, 3, 5, 7 the stages, 2, 4, 6 the mergings.
_TV_BLOCK = "features.{2s+1}.{i}"
_TORCHVISION = (
    *outer_rules("features.0.0", "features.0.2", "norm", "head"),
    *_blocks(_TV_BLOCK, "mlp.0", "mlp.3"),
    Rule(_TV_BLOCK + ".attn.relative_position_index", TABLE, RelativeIndex(flat=True)),
    *merging("features.{2s+2}"),
)

_HF_BLOCK = "(swin.)encoder.layers.{s}.blocks.{i}"
_HF_SHARED = (
    *outer_rules(
        "(swin.)embeddings.patch_embeddings.projection", "(swin.)embeddings.norm", "(swin.)layernorm", "classifier"
    ),
    Rule(_HF_BLOCK + ".{layernorm_before|layernorm_after}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    *merging("(swin.)encoder.layers.{s}.downsample"),
)
HUGGINGFACE_RULES = (
    *_HF_SHARED,
    Rule(
        tuple(_HF_BLOCK + f".attention.self.{part}.{{weight|bias}}" for part in ("query", "key", "value")),
        BLOCK + ".token_mixer.qkv.{weight|bias}",
        Concat(0, 3),
    ),
    Rule(_HF_BLOCK + ".attention.output.dense.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_HF_BLOCK + ".attention.self.relative_position_bias_table", TABLE),
    Rule(_HF_BLOCK + ".attention.self.relative_position_index", (), DROP),
    Rule(_HF_BLOCK + ".{intermediate|output}.dense.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)
TRANSFORMERS_RULES = (
    *_HF_SHARED,
    Rule(
        tuple(_HF_BLOCK + f".attention.{part}_proj.{{weight|bias}}" for part in "qkv"),
        BLOCK + ".token_mixer.qkv.{weight|bias}",
        Concat(0, 3),
    ),
    Rule(_HF_BLOCK + ".attention.o_proj.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_HF_BLOCK + ".attention.relative_position_bias.relative_position_bias_table", TABLE),
    Rule(_HF_BLOCK + ".attention.relative_position_bias.relative_position_index", (), DROP),
    Rule(_HF_BLOCK + ".mlp.{fc1|fc2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)

_MM_BLOCK = "(backbone.)stages.{s}.blocks.{i}"
_MM_MERGING = "(backbone.)stages.{s}.downsample"
MMPRETRAIN_RULES = (
    *outer_rules("(backbone.)patch_embed.projection", "(backbone.)patch_embed.norm", "(backbone.)norm3", "head.fc"),
    *_blocks(_MM_BLOCK, "ffn.layers.0.0", "ffn.layers.1", attention="attn.w_msa"),
    Rule(_MM_BLOCK + ".attn.w_msa.relative_position_index", TABLE, RelativeIndex(flat=False)),
    Rule(_MM_MERGING + ".norm.{weight|bias}", ENTRY + ".norm.{weight|bias}", UnfoldOrder()),
    Rule(_MM_MERGING + ".reduction.weight", ENTRY + ".reduction.weight", UnfoldOrder()),
)


def _config(c: Any) -> dict[str, Any]:
    if depends_on_edge(c, c.preprocess.size, "official"):
        raise VitrailError(
            f"transformers' Swin has edge=official, and this one edge={c.edge}; at {c.preprocess.size} pixels\n"
            "its maps are padded or one window, so its weights would give other answers there. Write for timm instead."
        )
    return huggingface_fields(c)


def depends_on_edge(c: "SwinConfig", size: int, other: str) -> bool:
    """Return whether another `edge` would change the logits of square images of a size."""
    if (pair := {c.edge, other}) == {other}:
        return False
    cells = -(-size // c.patch_size)
    sides = [-(-cells // 2**stage) for stage in range(len(c.depths))]
    covered = any(depth > 1 and side <= c.window_size for side, depth in zip(sides, c.depths, strict=True))
    padded = any(side % c.window_size for side in sides)
    return (covered and "shifted" in pair) or (padded and pair != {"official", "shifted"})


def huggingface_fields(c: "SwinConfig") -> dict[str, Any]:
    """Return the fields in which transformers states a Swin."""
    return {
        "architectures": ["SwinForImageClassification"],
        "model_type": "swin",
        "image_size": c.preprocess.size,
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        "embed_dim": c.dim,
        "depths": list(c.depths),
        "num_heads": list(c.num_heads),
        "window_size": c.window_size,
        "mlp_ratio": c.mlp_ratio,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        "use_absolute_embeddings": False,
        "drop_path_rate": c.drop_path,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    names = {"image_size": "image_size", "drop_path": "drop_path_rate", "mlp_ratio": "mlp_ratio"}
    return renamed(said, **names, norm_eps="layer_norm_eps")


_FAMILY = ("swin",)
_TABLE_MARK = "layers.0.blocks.0.attn.relative_position_bias_table"
FORMATS = (
    Format(
        "timm",
        _FAMILY,
        _TIMM,
        (_TABLE_MARK, "layers.1.downsample.reduction.weight", "layers.1.blocks.0.norm1.weight"),
        answers={"edge": "timm"},
    ),
    Format("official", _FAMILY, OFFICIAL_RULES, (_TABLE_MARK, "layers.0.downsample.reduction.weight")),
    Format(
        "torchvision", _FAMILY, _TORCHVISION, ("features.0.0.weight", "features.1.0.attn.relative_position_bias_table")
    ),
    Format(
        "huggingface",
        _FAMILY,
        HUGGINGFACE_RULES,
        ("(swin.)encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",),
        describe=_config,
        states=_states,
    ),
    Format(
        "transformers",
        _FAMILY,
        TRANSFORMERS_RULES,
        ("(swin.)encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table",),
        writes=False,
        describe=_config,
        states=_states,
    ),
    Format(
        "mmpretrain",
        _FAMILY,
        MMPRETRAIN_RULES,
        ("(backbone.)stages.0.blocks.0.attn.w_msa.relative_position_bias_table",),
    ),
)
