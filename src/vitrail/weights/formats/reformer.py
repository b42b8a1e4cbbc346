"""Reformer in Hugging Face's names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Tensors

_BLOCK, _LAYER = "backbone.stages.0.blocks.{i}", "(reformer.)encoder.layers.{i}"
_SELF, _POSITIONS = _LAYER + ".attention.self_attention", "(reformer.)embeddings.position_embeddings.weights"


class AxisTable:
    """Table of one axis of the positions, which broadcasts over the other one in their files.

    Args:
        dim: the dimension of 1.
    """

    def __init__(self, dim: int):
        self.dim = dim

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop it."""
        return (theirs[0].squeeze(self.dim),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Add it."""
        return (ours[0].unsqueeze(self.dim),)


_RULES = (
    Rule("(reformer.)embeddings.word_embeddings.weight", "backbone.embedding.words.weight"),
    Rule(_POSITIONS + ".0", "backbone.embedding.steps.0.rows", AxisTable(1)),
    Rule(_POSITIONS + ".1", "backbone.embedding.steps.0.columns", AxisTable(0)),
    Rule(_LAYER + ".{attention|feed_forward}.layer_norm.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_SELF + ".{query|key|value|query_key}.weight", _BLOCK + ".token_mixer.{q|k|v|qk}.weight"),
    Rule(_SELF + ".{*}mask_value_float{*}", (), DROP),  # constants of older files
    Rule(_LAYER + ".attention.output.dense.weight", _BLOCK + ".token_mixer.proj.weight"),
    Rule(
        _LAYER + ".feed_forward.{dense|output}.dense.{weight|bias}",
        _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}",
    ),
    Rule("(reformer.)encoder.layer_norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("lm_head.decoder.weight", "head.linear.weight"),
    Rule("lm_head.bias", "head.linear.bias"),
    Rule("lm_head.decoder.bias", (), DROP),  # `lm_head.bias` again
)

_FIXED: dict[str, Any] = {
    "model_type": "reformer",
    "is_decoder": True,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-12,
    "axial_pos_embds": True,
    "local_num_chunks_before": 1,
    "local_num_chunks_after": 0,
    "lsh_num_chunks_before": 1,
    "lsh_num_chunks_after": 0,
}
"""Fields of `config.json` with one value that is computed here; a file with another value is refused."""

_NAMES = {
    "num_heads": "num_attention_heads",
    "head_dim": "attention_head_size",
    "local_chunk": "local_attn_chunk_length",
    "lsh_chunk": "lsh_attn_chunk_length",
    "rounds": "num_hashes",
    "hash_seed": "hash_seed",
}


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["ReformerModelWithLMHead"],
        **_FIXED,
        **{theirs: getattr(c, ours) for ours, theirs in _NAMES.items()},
        "attn_layers": list(c.attn_layers),
        "num_buckets": list(c.buckets) if len(c.buckets) > 1 else c.buckets[0],
        "hidden_size": c.dim,
        "feed_forward_size": c.hidden,
        "axial_pos_shape": list(c.position_shape),
        "axial_pos_embds_dim": list(c.position_dims),
        "max_position_embeddings": c.max_length,
        "vocab_size": c.vocab_size,
        "hidden_dropout_prob": c.dropout,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    found = renamed(said, **_NAMES, dropout="hidden_dropout_prob")
    buckets = said.get("num_buckets") or _usual_buckets(said)
    return {**found, "buckets": (buckets,) if isinstance(buckets, int) else tuple(buckets)}


def _usual_buckets(said: Mapping[str, Any]) -> int | list[int]:
    """Return the buckets that transformers chooses for the longest text if none are stated."""
    chunk, longest = said.get("lsh_attn_chunk_length", 64), said.get("max_position_embeddings", 4096)
    power = max(1, (2 * (longest // chunk)).bit_length() - 1)
    limit = 2 * max(int((longest // chunk) ** 0.5), chunk)
    return 2**power if 2**power <= limit else [2 ** (power // 2), 2 ** (power - power // 2)]


FORMATS = (
    Format(
        "huggingface",
        ("reformer",),
        _RULES,
        (_POSITIONS + ".0", _LAYER.replace("{i}", "0") + ".feed_forward.dense.dense.weight"),
        describe=_describe,
        states=_states,
    ),
)
