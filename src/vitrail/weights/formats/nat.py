"""NAT and DiNAT: the authors, and Hugging Face, which had a model for each of the two and keeps DiNAT's.

Both keep the merging at the end of stage s; we keep it at the start of stage s + 1. Their tables of position biases
count key minus query, head by head; ours count query minus key, offset by offset.
"""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import Concat, KeyMinusQuery, Stack

BLOCK = "backbone.stages.{s}.blocks.{i}"
ENTRY = "backbone.stages.{s+1}.entry"
PATCHES = "backbone.embedding.patches"
TABLE = BLOCK + ".token_mixer.position.table"


def official_blocks(theirs: str) -> tuple[Rule, ...]:
    """Return the rules of blocks and mergings in the authors' code."""
    return (
        Rule(theirs + ".blocks.{i}.{norm1|norm2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(theirs + ".blocks.{i}.attn.{qkv|proj}.{weight|bias}", BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}"),
        Rule(theirs + ".blocks.{i}.attn.rpb", TABLE, KeyMinusQuery()),
        Rule(theirs + ".blocks.{i}.mlp.{fc1|fc2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule(theirs + ".downsample.reduction.weight", ENTRY + ".reduction.weight"),
        Rule(theirs + ".downsample.norm.{weight|bias}", ENTRY + ".norm.{weight|bias}"),
    )


def official_ends() -> tuple[Rule, ...]:
    """Return the rules of the norms around the stages and of the head in the authors' code."""
    return (
        Rule("patch_embed.norm.{weight|bias}", PATCHES + ".norm.{weight|bias}"),
        Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
        Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
    )


_OFFICIAL = (
    Rule("patch_embed.proj.{j}.{weight|bias}", PATCHES + ".proj.{j}.{weight|bias}"),
    *official_ends(),
    *official_blocks("levels.{s}"),
    Rule("levels.{s}.blocks.{i}.{gamma1|gamma2}", BLOCK + ".{scale1|scale2}.gamma"),
)


def _huggingface(word: str) -> tuple[Rule, ...]:
    """Return the rules of Hugging Face for `nat` or `dinat`."""
    stem, level = f"({word}.)embeddings", f"({word}.)encoder.levels.{{s}}"
    block = level + ".layers.{i}"
    return (
        Rule(stem + ".patch_embeddings.projection.{j}.{weight|bias}", PATCHES + ".proj.{j}.{weight|bias}"),
        Rule(stem + ".norm.{weight|bias}", PATCHES + ".norm.{weight|bias}"),
        Rule(block + ".{layernorm_before|layernorm_after}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(
            tuple(block + f".attention.self.{part}.{{weight|bias}}" for part in ("query", "key", "value")),
            BLOCK + ".token_mixer.qkv.{weight|bias}",
            Concat(0, 3),
        ),
        Rule(block + ".attention.self.rpb", TABLE, KeyMinusQuery()),
        Rule(block + ".attention.output.dense.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
        Rule(block + ".{intermediate|output}.dense.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
        Rule(block + ".layer_scale_parameters", (BLOCK + ".scale1.gamma", BLOCK + ".scale2.gamma"), Stack()),
        Rule(level + ".downsample.reduction.weight", ENTRY + ".reduction.weight"),
        Rule(level + ".downsample.norm.{weight|bias}", ENTRY + ".norm.{weight|bias}"),
        Rule(f"({word}.)layernorm.{{weight|bias}}", "backbone.norm.{weight|bias}"),
        Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
    )


def _config(c: Any, name: str) -> dict[str, Any]:
    return {
        "architectures": [f"{name}ForImageClassification"],
        "model_type": name.lower(),
        "patch_size": 4,
        "num_channels": c.in_channels,
        "embed_dim": c.dim,
        "depths": list(c.depths),
        "num_heads": list(c.num_heads),
        "kernel_size": c.kernel_size,
        "mlp_ratio": c.mlp_ratio,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        "layer_scale_init_value": c.layer_scale or 0.0,
        "drop_path_rate": c.drop_path,
    }


def _nat_config(c: Any) -> dict[str, Any]:
    return _config(c, "Nat")


def _dinat_config(c: Any) -> dict[str, Any]:
    dilations = [
        [dilation if i % 2 else 1 for i in range(depth)] for depth, dilation in zip(c.depths, c.dilations, strict=True)
    ]
    return {**_config(c, "Dinat"), "dilations": dilations}


def _nat_states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, drop_path="drop_path_rate", mlp_ratio="mlp_ratio", norm_eps="layer_norm_eps")


def _dinat_states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Read the dilation of every other block; that the blocks between have none, `_dinat_config` is compared for."""
    rows = said.get("dilations")
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        return _nat_states(said)
    return {**_nat_states(said), "dilations": tuple(row[min(1, len(row) - 1)] for row in rows)}


_HF_MARK = "encoder.levels.0.layers.0.attention.self.rpb"
FORMATS = (
    Format("official", ("nat", "dinat"), _OFFICIAL, ("patch_embed.proj.0.weight", "levels.0.blocks.0.attn.rpb")),
    Format(
        "huggingface", ("nat",), _huggingface("nat"), (f"(nat.){_HF_MARK}",), describe=_nat_config, states=_nat_states
    ),
    Format(
        "huggingface",
        ("dinat",),
        _huggingface("dinat"),
        (f"(dinat.){_HF_MARK}",),
        describe=_dinat_config,
        states=_dinat_states,
    ),
)
