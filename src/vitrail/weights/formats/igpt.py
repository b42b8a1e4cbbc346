"""iGPT: Hugging Face's ImageGPT. Its color clusters belong to the image processor and are not among the weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Kernel, Tensors

BLOCK, HF_BLOCK = "backbone.stages.0.blocks.{i}", "(transformer.)h.{i}"
PIXELS = "backbone.embedding.patches"


class UnbatchedTable:
    """Position table without the batch dimension, `(N, C)`; ours is `(1, N, C)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Add the first dimension."""
        return tuple(x[None] for x in theirs)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Remove the first dimension."""
        return tuple(x[0] for x in ours)


_HUGGINGFACE = (
    Rule("(transformer.)wte.weight", PIXELS + ".table"),
    Rule((), PIXELS + ".clusters", DROP),
    Rule("(transformer.)wpe.weight", "backbone.embedding.steps.0.table", UnbatchedTable()),
    Rule(HF_BLOCK + ".{ln_1|ln_2}.weight", BLOCK + ".{norm1|norm2}.weight"),
    Rule(HF_BLOCK + ".attn.{c_attn|c_proj}.{weight|bias}", BLOCK + ".token_mixer.{qkv|proj}.{weight|bias}", Kernel()),
    Rule(HF_BLOCK + ".mlp.{c_fc|c_proj}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}", Kernel()),
    Rule("(transformer.)ln_f.weight", "backbone.norm.weight"),
    Rule("score.weight", "head.linear.weight"),
)


def _config(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["ImageGPTForImageClassification"],
        "model_type": "imagegpt",
        "vocab_size": c.colors + 1,
        "n_positions": c.preprocess.size**2,
        "n_embd": c.dim,
        "n_layer": c.depth,
        "n_head": c.num_heads,
        "n_inner": int(c.dim * c.mlp_ratio),
        "activation_function": "quick_gelu",
        "layer_norm_epsilon": 1e-5,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, num_heads="n_head")


FORMATS = (
    Format(
        "huggingface",
        ("igpt",),
        _HUGGINGFACE,
        ("(transformer.)wte.weight", "(transformer.)h.0.attn.c_attn.weight", "score.weight"),
        describe=_config,
        states=_states,
    ),
)
