"""ALBERT in Hugging Face's names."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat

_BLOCK = "backbone.stages.0.blocks.0.block"
_EMBEDDING = "backbone.embedding"
_LAYER = "(albert.)encoder.albert_layer_groups.0.albert_layers.0"
_QKV = tuple(f"{_LAYER}.attention.{part}.{{weight|bias}}" for part in ("query", "key", "value"))

_RULES = (
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
    Rule("predictions.{dense|LayerNorm}.{weight|bias}", "head.words.transform.{0|2}.{weight|bias}"),
    Rule("predictions.bias", "head.words.bias"),
    Rule("predictions.decoder.{weight|bias}", (), DROP),
    Rule("(albert.)pooler.{weight|bias}", "head.next.pool.linear.{weight|bias}"),
    Rule("sop_classifier.classifier.{weight|bias}", "head.next.linear.{weight|bias}"),
)


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["AlbertForPreTraining"],
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


FORMATS = (Format("huggingface", ("albert",), _RULES, (_LAYER + ".ffn.weight",), describe=_describe, states=_states),)
