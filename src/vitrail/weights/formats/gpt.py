"""GPT and GPT-2 in Hugging Face's names, whose linear layers store the input first (Conv1D)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Copy, Kernel

_BLOCK = "backbone.stages.0.blocks.{i}"
_LAYER = "(transformer.)h.{i}"
_MARK = "(transformer.)h.0.attn.c_attn.weight"


def _rules(words: str, positions: str) -> tuple[Rule, ...]:
    """Return the rules that both share, with their names of the two tables."""
    attention, channels = "{attn.c_attn|attn.c_proj|mlp.c_fc|mlp.c_proj}", "{token_mixer.qkv|token_mixer.proj|"
    channels += "channel_mixer.fc1|channel_mixer.fc2}"
    return (
        Rule(f"(transformer.){words}.weight", "backbone.embedding.words.weight"),
        Rule(f"(transformer.){positions}.weight", "backbone.embedding.steps.0.table"),
        Rule(_LAYER + ".{ln_1|ln_2}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(f"{_LAYER}.{attention}.{{weight|bias}}", f"{_BLOCK}.{channels}.{{weight|bias}}", Kernel()),
        Rule(_LAYER + ".attn.{bias|masked_bias}", (), DROP),
        Rule("lm_head.weight", (), Copy("backbone.embedding.words.weight")),
    )


def _describe(c: Any, architecture: str, kind: str, act: Mapping[str, str]) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": kind,
        "n_embd": c.dim,
        "n_layer": c.depth,
        "n_head": c.num_heads,
        "vocab_size": c.vocab_size,
        "n_positions": c.max_length,
        **act,
        "layer_norm_epsilon": 1e-5,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="n_head", dropout="resid_pdrop")


def _format(family: str, rules: tuple[Rule, ...], table: str, describe: Callable[[Any], dict[str, Any]]) -> Format:
    marks = (f"(transformer.){table}.weight", _MARK)
    return Format("huggingface", (family,), rules, marks, describe=describe, states=_states)


_GPT = (*_rules("tokens_embed", "positions_embed"), Rule("(transformer.)position_ids", (), DROP))
_GPT2 = (*_rules("wte", "wpe"), Rule("(transformer.)ln_f.{weight|bias}", "backbone.norm.{weight|bias}"))
_AS_GPT = partial(_describe, architecture="OpenAIGPTLMHeadModel", kind="openai-gpt", act={"afn": "gelu"})
_AS_GPT2 = partial(_describe, architecture="GPT2LMHeadModel", kind="gpt2", act={"activation_function": "gelu_new"})

FORMATS = (_format("gpt", _GPT, "tokens_embed", _AS_GPT), _format("gpt2", _GPT2, "wte", _AS_GPT2))
