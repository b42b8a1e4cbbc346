"""BERT and MiniLM in Hugging Face's names, with the heads of pretraining and of classification."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, Copy

if TYPE_CHECKING:
    from vitrail.models.bert import BertConfig


BLOCK = "backbone.stages.0.blocks.{i}"
EMBEDDING = "backbone.embedding"
_LAYER = "(bert.)encoder.layer.{i}"
_QKV = tuple(f"{_LAYER}.attention.self.{part}.{{weight|bias}}" for part in ("query", "key", "value"))

_TRUNK = (
    Rule("(bert.)embeddings.word_embeddings.weight", EMBEDDING + ".words.weight"),
    Rule("(bert.)embeddings.position_embeddings.weight", EMBEDDING + ".steps.0.table"),
    Rule("(bert.)embeddings.token_type_embeddings.weight", EMBEDDING + ".steps.1.table.weight"),
    Rule("(bert.)embeddings.LayerNorm.{weight|bias}", EMBEDDING + ".steps.2.module.{weight|bias}"),
    Rule("(bert.)embeddings.{position_ids|token_type_ids}", (), DROP),
    Rule(_QKV, BLOCK + ".token_mixer.qkv.{weight|bias}", Concat(0, 3)),
    Rule(_LAYER + ".attention.output.dense.{weight|bias}", BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_LAYER + ".attention.output.LayerNorm.{weight|bias}", BLOCK + ".norm1.{weight|bias}"),
    Rule(_LAYER + ".output.LayerNorm.{weight|bias}", BLOCK + ".norm2.{weight|bias}"),
    Rule(_LAYER + ".{intermediate|output}.dense.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)


def _words(ours: str) -> tuple[Rule, ...]:
    """Return the rules of the masked-language head; its word table is the embedding's, stored once."""
    return (
        Rule("cls.predictions.transform.{dense|LayerNorm}.{weight|bias}", ours + ".transform.{0|2}.{weight|bias}"),
        Rule("cls.predictions.bias", ours + ".bias"),
        Rule("cls.predictions.decoder.weight", (), Copy(EMBEDDING + ".words.weight")),
        Rule("cls.predictions.decoder.bias", (), Copy(ours + ".bias")),
    )


_PRETRAINING = (
    *_TRUNK,
    *_words("head.words"),
    Rule("(bert.)pooler.dense.{weight|bias}", "head.next.pool.linear.{weight|bias}"),
    Rule("cls.seq_relationship.{weight|bias}", "head.next.linear.{weight|bias}"),
)
_MASKED = (*_TRUNK, *_words("head"))
_CLASSES = (
    *_TRUNK,
    Rule("(bert.)pooler.dense.{weight|bias}", "head.pool.linear.{weight|bias}"),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)
_VECTOR = (*_TRUNK, Rule("(bert.)pooler.dense.{weight|bias}", (), DROP))


def describe(c: "BertConfig") -> dict[str, Any]:
    """Return the fields in which transformers states a BERT."""
    names = {"pretraining": "PreTraining", "masked": "MaskedLM", "classes": "SequenceClassification"}
    return {
        "architectures": ["BertModel" if c.head in ("vector", "mean") else f"BertFor{names[c.head]}"],
        "model_type": "bert",
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "intermediate_size": int(c.dim * c.mlp_ratio),
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_length,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }


def states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of such a config that shapes do not determine."""
    return renamed(said, num_heads="num_attention_heads", dropout="hidden_dropout_prob")


_MARKS = ("(bert.)embeddings.word_embeddings.weight", "(bert.)encoder.layer.0.attention.self.query.weight")


def _format(rules: tuple[Rule, ...], *marks: str) -> Format:
    return Format("huggingface", ("bert",), rules, (*_MARKS, *marks), describe=describe, states=states)


FORMATS = (
    _format(_PRETRAINING, "cls.seq_relationship.weight"),
    _format(_MASKED, "cls.predictions.bias"),
    _format(_CLASSES, "classifier.weight"),
    _format(_VECTOR),
)
