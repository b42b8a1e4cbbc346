"""ALBERT in Hugging Face's names, with the heads of pretraining and of classification."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, Copy

_BLOCK = "backbone.stages.0.blocks.0.block"
_EMBEDDING = "backbone.embedding"
_LAYER = "(albert.)encoder.albert_layer_groups.0.albert_layers.0"
_QKV = tuple(f"{_LAYER}.attention.{part}.{{weight|bias}}" for part in ("query", "key", "value"))

_TRUNK = (
    Rule("(albert.)embeddings.word_embeddings.weight", _EMBEDDING + ".words.weight"),
    Rule("(albert.)embeddings.position_embeddings.weight", _EMBEDDING + ".steps.0.table"),
    Rule("(albert.)embeddings.token_type_embeddings.weight", _EMBEDDING + ".steps.1.table.weight"),
    Rule("(albert.)embeddings.LayerNorm.{weight|bias}", _EMBEDDING + ".steps.2.module.{weight|bias}"),
    Rule("(albert.)embeddings.{position_ids|token_type_ids}", (), DROP),
    Rule("(albert.)encoder.embedding_hidden_mapping_in.{weight|bias}", _EMBEDDING + ".steps.3.module.{weight|bias}"),
    Rule(_QKV, _BLOCK + ".token_mixer.qkv.{weight|bias}", Concat(0, 3)),
    Rule(_LAYER + ".attention.dense.{weight|bias}", _BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_LAYER + ".attention.LayerNorm.{weight|bias}", _BLOCK + ".norm1.{weight|bias}"),
    Rule(_LAYER + ".full_layer_layer_norm.{weight|bias}", _BLOCK + ".norm2.{weight|bias}"),
    Rule(_LAYER + ".{ffn|ffn_output}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)


def _words(ours: str) -> tuple[Rule, ...]:
    """Return the rules of the masked-language head; its word table is the embedding's, stored once."""
    return (
        Rule("predictions.{dense|LayerNorm}.{weight|bias}", ours + ".transform.{0|2}.{weight|bias}"),
        Rule("predictions.bias", ours + ".bias"),
        Rule("predictions.decoder.weight", (), Copy(_EMBEDDING + ".words.weight")),
        Rule("predictions.decoder.bias", (), Copy(ours + ".bias")),
    )


_POOLER = "(albert.)pooler.{weight|bias}"
_PRETRAINING = (
    *_TRUNK,
    *_words("head.words"),
    Rule(_POOLER, "head.next.pool.linear.{weight|bias}"),
    Rule("sop_classifier.classifier.{weight|bias}", "head.next.linear.{weight|bias}"),
)
_MASKED = (*_TRUNK, *_words("head"), Rule(_POOLER, (), DROP))
_CLASSES = (
    *_TRUNK,
    Rule(_POOLER, "head.pool.linear.{weight|bias}"),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)
_VECTOR = (*_TRUNK, Rule(_POOLER, (), DROP))


def _describe(c: Any) -> dict[str, Any]:
    names = {"pretraining": "PreTraining", "masked": "MaskedLM", "classes": "SequenceClassification"}
    return {
        "architectures": ["AlbertModel" if c.head in ("vector", "mean") else f"AlbertFor{names[c.head]}"],
        "model_type": "albert",
        "embedding_size": c.word_dim,
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "intermediate_size": int(c.dim * c.mlp_ratio),
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_length,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-12,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="num_attention_heads", depth="num_hidden_layers")


def _format(rules: tuple[Rule, ...], *marks: str) -> Format:
    return Format(
        "huggingface", ("albert",), rules, (_LAYER + ".ffn.weight", *marks), describe=_describe, states=_states
    )


FORMATS = (
    _format(_PRETRAINING, "sop_classifier.classifier.weight"),
    _format(_MASKED, "predictions.bias"),
    _format(_CLASSES, "classifier.weight"),
    _format(_VECTOR),
)
