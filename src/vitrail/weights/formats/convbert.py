"""ConvBERT in Hugging Face's names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, Copy, Tensors

_BLOCK = "backbone.stages.0.blocks.{i}"
_EMBEDDING = "backbone.embedding"
_LAYER = "(convbert.)encoder.layer.{i}"
_SELF, _OURS = _LAYER + ".attention.self", _BLOCK + ".token_mixer"
_QKV = tuple(f"{_SELF}.{part}.{{weight|bias}}" for part in ("query", "key", "value"))


class LastOne:
    """They have a last dimension of 1 more than we: a pointwise convolution, a bias of one column."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop it."""
        return (theirs[0][..., 0],)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Add it."""
        return (ours[0][..., None],)


_RULES = (
    Rule("(convbert.)embeddings.word_embeddings.weight", _EMBEDDING + ".words.weight"),
    Rule("(convbert.)embeddings.position_embeddings.weight", _EMBEDDING + ".steps.0.table"),
    Rule("(convbert.)embeddings.token_type_embeddings.weight", _EMBEDDING + ".steps.1.table.weight"),
    Rule("(convbert.)embeddings.LayerNorm.{weight|bias}", _EMBEDDING + ".steps.2.module.{weight|bias}"),
    Rule("(convbert.)embeddings.{position_ids|token_type_ids}", (), DROP),
    Rule(_QKV, _OURS + ".qkv.{weight|bias}", Concat(0, 3)),
    Rule(_SELF + ".key_conv_attn_layer.depthwise.weight", _OURS + ".span.depthwise.weight"),
    Rule(_SELF + ".key_conv_attn_layer.pointwise.weight", _OURS + ".span.pointwise.weight", LastOne()),
    Rule(_SELF + ".key_conv_attn_layer.bias", _OURS + ".span.pointwise.bias", LastOne()),
    Rule(_SELF + ".{conv_kernel_layer|conv_out_layer}.{weight|bias}", _OURS + ".{kernel|conv_v}.{weight|bias}"),
    Rule(_LAYER + ".attention.output.dense.{weight|bias}", _OURS + ".proj.{weight|bias}"),
    Rule(_LAYER + ".attention.output.LayerNorm.{weight|bias}", _BLOCK + ".norm1.{weight|bias}"),
    Rule(_LAYER + ".output.LayerNorm.{weight|bias}", _BLOCK + ".norm2.{weight|bias}"),
    Rule(_LAYER + ".{intermediate|output}.dense.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("generator_predictions.{dense|LayerNorm}.{weight|bias}", "head.transform.{0|2}.{weight|bias}"),
    Rule("generator_lm_head.weight", (), Copy(_EMBEDDING + ".words.weight")),
    Rule("generator_lm_head.bias", "head.bias"),
)


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["ConvBertForMaskedLM"],
        "model_type": "convbert",
        "embedding_size": c.dim,
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "head_ratio": c.head_ratio,
        "conv_kernel_size": c.kernel_size,
        "num_groups": 1,
        "intermediate_size": int(c.dim * c.mlp_ratio),
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_length,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    names = {"num_heads": "num_attention_heads", "head_ratio": "head_ratio", "kernel_size": "conv_kernel_size"}
    return renamed(said, **names, dropout="hidden_dropout_prob")


FORMATS = (
    Format(
        "huggingface",
        ("convbert",),
        _RULES,
        (_SELF.replace("{i}", "0") + ".conv_kernel_layer.weight",),
        describe=_describe,
        states=_states,
    ),
)
