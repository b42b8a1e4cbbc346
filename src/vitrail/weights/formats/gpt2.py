"""GPT-2 in Hugging Face's names, whose linear layers store the input first (Conv1D)."""

from collections.abc import Mapping
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Kernel

_BLOCK = "backbone.stages.0.blocks.{i}"
_LAYER = "(transformer.)h.{i}"

_RULES = (
    Rule("(transformer.)wte.weight", "backbone.embedding.words.weight"),
    Rule("(transformer.)wpe.weight", "backbone.embedding.steps.0.table"),
    Rule(_LAYER + ".{ln_1|ln_2}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_LAYER + ".attn.{c_attn|c_proj}.{weight|bias}", _BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}", Kernel()),
    Rule(_LAYER + ".mlp.{c_fc|c_proj}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}", Kernel()),
    Rule(_LAYER + ".attn.{bias|masked_bias}", (), DROP),
    Rule("(transformer.)ln_f.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("lm_head.weight", (), DROP),  # the word table, stored once
)


def _describe(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": c.dim,
        "n_layer": c.depth,
        "n_head": c.num_heads,
        "vocab_size": c.vocab_size,
        "n_positions": c.max_length,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="n_head", dropout="resid_pdrop")


FORMATS = (
    Format(
        "huggingface",
        ("gpt2",),
        _RULES,
        ("(transformer.)wte.weight", "(transformer.)h.0.attn.c_attn.weight"),
        describe=_describe,
        states=_states,
    ),
)
