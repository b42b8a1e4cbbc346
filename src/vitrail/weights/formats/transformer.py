"""The encoder-decoder Transformer in Hugging Face's names for Marian models."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, Copy, Tensors


class Row:
    """Their table of one row is our vector: `(1, V)` and `(V,)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Drop the first dimension."""
        return (theirs[0].flatten(),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Add the first dimension."""
        return (ours[0][None],)


def _stack(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules that encoder and decoder share."""
    theirs, ours = f"model.{theirs}.layers.{{i}}", f"{ours}.blocks.{{i}}"
    qkv = tuple(f"{theirs}.self_attn.{part}_proj.{{weight|bias}}" for part in "qkv")
    return (
        Rule(qkv, ours + ".token_mixer.qkv.{weight|bias}", Concat(0, 3)),
        Rule(theirs + ".self_attn.out_proj.{weight|bias}", ours + ".token_mixer.proj.{weight|bias}"),
        Rule(theirs + ".{self_attn|final}_layer_norm.{weight|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule(theirs + ".{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


_CROSS, _OURS = "model.decoder.layers.{i}.encoder_attn", "decoder.blocks.{i}"
_KV = tuple(f"{_CROSS}.{part}_proj.{{weight|bias}}" for part in "kv")

_RULES = (
    Rule("model.shared.weight", "embedding.words.weight"),
    Rule("model.{encoder|decoder}.embed_tokens.weight", (), Copy("embedding.words.weight")),
    Rule("model.{encoder|decoder}.embed_positions.weight", (), DROP),
    Rule("lm_head.weight", (), Copy("embedding.words.weight")),
    Rule("final_logits_bias", "head.bias", Row()),
    *_stack("encoder", "encoder"),
    *_stack("decoder", "decoder"),
    Rule(_CROSS + ".q_proj.{weight|bias}", _OURS + ".cross_mixer.q.{weight|bias}"),
    Rule(_KV, _OURS + ".cross_mixer.kv.{weight|bias}", Concat(0, 2)),
    Rule(_CROSS + ".out_proj.{weight|bias}", _OURS + ".cross_mixer.proj.{weight|bias}"),
    Rule(_CROSS + "_layer_norm.{weight|bias}", _OURS + ".norm_cross.{weight|bias}"),
)


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "d_model": c.dim,
        "encoder_layers": c.depth,
        "decoder_layers": c.depth,
        "encoder_attention_heads": c.num_heads,
        "decoder_attention_heads": c.num_heads,
        "encoder_ffn_dim": c.hidden,
        "decoder_ffn_dim": c.hidden,
        "vocab_size": c.vocab_size,
        "activation_function": {"paper": "relu", "marian": "swish"}[c.form],
        "scale_embedding": True,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="encoder_attention_heads", dropout="dropout")


_WHOLE = Rule("{*}", "{*}")
FORMATS = (
    Format("vitrail", ("transformer",), (_WHOLE,), ("encoder.blocks.0.{*}", "decoder.blocks.0.{*}"), writes=False),
    Format(
        "huggingface",
        ("transformer",),
        _RULES,
        ("model.shared.weight", "model.decoder.layers.0.encoder_attn.q_proj.weight", "final_logits_bias"),
        describe=_describe,
        states=_states,
    ),
)
