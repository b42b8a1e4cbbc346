"""Perceiver IO: Hugging Face, which keeps queries, keys and values apart."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.formats.igpt import UnbatchedTable
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import Concat

WB = "{weight|bias}"
_PRE = "perceiver.input_preprocessor."
_INPUTS = "backbone.embedding.inputs."
_DECODER = "perceiver.decoder.decoder."


def _layer(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of one cross-attention layer."""
    attention = theirs + ".attention."
    return (
        Rule(f"{attention}self.{{layernorm1|layernorm2}}.{WB}", f"{ours}.{{norm1|norm_array}}.{WB}"),
        Rule(f"{attention}self.query.{WB}", f"{ours}.q.{WB}"),
        Rule((f"{attention}self.key.{WB}", f"{attention}self.value.{WB}"), f"{ours}.kv.{WB}", Concat(0, 2)),
        Rule(f"{attention}output.dense.{WB}", f"{ours}.proj.{WB}"),
        Rule(f"{theirs}.layernorm.{WB}", f"{ours}.norm2.{WB}"),
        Rule(f"{theirs}.mlp.{{dense1|dense2}}.{WB}", f"{ours}.mlp.{{fc1|fc2}}.{WB}"),
    )


_SELF, _BLOCK = "perceiver.encoder.self_attends.{i}", "backbone.stages.0.blocks.{i}"
_HUGGINGFACE = (
    Rule(f"{_PRE}convnet_1x1.{WB}", f"{_INPUTS}conv.{WB}"),
    Rule(f"{_PRE}position_embeddings.position_embeddings", f"{_INPUTS}position.table", UnbatchedTable()),
    Rule(f"{_PRE}positions_projection.{WB}", f"{_INPUTS}proj.{WB}"),
    Rule(f"{_PRE}convnet.conv.weight", f"{_INPUTS}conv.weight"),
    Rule(
        f"{_PRE}convnet.batchnorm.{{weight|bias|running_mean|running_var|num_batches_tracked}}",
        f"{_INPUTS}norm.{{weight|bias|running_mean|running_var|num_batches_tracked}}",
    ),
    Rule("perceiver.embeddings.latents", "backbone.embedding.latents"),
    *_layer("perceiver.encoder.cross_attention", "backbone.embedding.layer"),
    Rule(f"{_SELF}.attention.self.layernorm1.{WB}", f"{_BLOCK}.norm1.{WB}"),
    Rule(
        tuple(f"{_SELF}.attention.self.{part}.{WB}" for part in ("query", "key", "value")),
        f"{_BLOCK}.token_mixer.qkv.{WB}",
        Concat(0, 3),
    ),
    Rule(f"{_SELF}.attention.output.dense.{WB}", f"{_BLOCK}.token_mixer.proj.{WB}"),
    Rule(f"{_SELF}.layernorm.{WB}", f"{_BLOCK}.norm2.{WB}"),
    Rule(f"{_SELF}.mlp.{{dense1|dense2}}.{WB}", f"{_BLOCK}.channel_mixer.{{fc1|fc2}}.{WB}"),
    Rule(f"{_DECODER}output_position_encodings.position_embeddings", "head.query"),
    *_layer(f"{_DECODER}decoding_cross_attention", "head.layer"),
    Rule(f"{_DECODER}final_layer.{WB}", f"head.linear.{WB}"),
)


def _only(*absent: str) -> tuple[Rule, ...]:
    """Return the rules without those of the keys that a kind of input does not have."""
    return tuple(rule for rule in _HUGGINGFACE if not any(str(rule.theirs).startswith(_PRE + key) for key in absent))


_KINDS = {
    "Learned": ("convnet_1x1.weight", _only("convnet.")),
    "ConvProcessing": ("convnet.conv.weight", _only("convnet_1x1", "position")),
    "Fourier": ("", _only("convnet", "position")),
}
_NAMES = {"learned": "Learned", "conv": "ConvProcessing", "fourier": "Fourier"}


def _config(c: Any) -> dict[str, Any]:
    return {
        "architectures": [f"PerceiverForImageClassification{_NAMES[c.inputs]}"],
        "model_type": "perceiver",
        "num_latents": c.latents,
        "d_latents": c.dim,
        "num_blocks": c.repeats,
        "num_self_attends_per_block": c.depth,
        "num_self_attention_heads": c.num_heads,
        "num_cross_attention_heads": 1,
        "self_attention_widening_factor": 1,
        "cross_attention_widening_factor": 1,
        "hidden_act": "gelu",
        "image_size": c.preprocess.size,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="num_self_attention_heads", repeats="num_blocks", image_size="image_size")


_MARK = "perceiver.encoder.self_attends.0.attention.self.query.weight"
FORMATS = tuple(
    Format(
        "huggingface",
        ("perceiver",),
        rules,
        (_MARK, _PRE + mark) if mark else (_MARK,),
        describe=_config,
        states=_states,
    )
    for mark, rules in _KINDS.values()
)
