"""GPT in Hugging Face's names, whose linear layers store the input first (Conv1D)."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Kernel

_BLOCK = "backbone.stages.0.blocks.{i}"
_LAYER = "(transformer.)h.{i}"

_RULES = (
    Rule("(transformer.)tokens_embed.weight", "backbone.embedding.words.weight"),
    Rule("(transformer.)positions_embed.weight", "backbone.embedding.steps.0.table"),
    Rule("(transformer.)position_ids", (), DROP),  # a buffer of older files
    Rule(_LAYER + ".{ln_1|ln_2}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_LAYER + ".attn.{c_attn|c_proj}.{weight|bias}", _BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}", Kernel()),
    Rule(_LAYER + ".mlp.{c_fc|c_proj}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}", Kernel()),
    Rule(_LAYER + ".attn.bias", (), DROP),
    Rule("lm_head.weight", (), DROP),  # the word table, stored once
)


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["OpenAIGPTLMHeadModel"],
        "model_type": "openai-gpt",
        "n_embd": c.dim,
        "n_layer": c.depth,
        "n_head": c.num_heads,
        "vocab_size": c.vocab_size,
        "n_positions": c.max_length,
        "afn": "gelu",
        "layer_norm_epsilon": 1e-5,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="n_head", dropout="resid_pdrop")


FORMATS = (
    Format(
        "huggingface",
        ("gpt",),
        _RULES,
        ("(transformer.)tokens_embed.weight", "(transformer.)h.0.attn.c_attn.weight"),
        describe=_describe,
        states=_states,
    ),
)
