"""Image GPT in the names of teddykoker/image-gpt; the start vector is a parameter of its own there."""

import torch
from torch import Tensor

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP, Tensors

_BLOCK, _LAYER = "backbone.stages.0.blocks.{i}", "gpt.layers.{i}"


class AppendedRow:
    """Table `(K, C)` and one vector `(C,)`; ours is one table with the vector as its last row."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Append the vector."""
        table, row = theirs
        return (torch.cat([table, row[None]]),)

    def write(self, *ours: Tensor, config: object) -> Tensors:
        """Split the last row off."""
        return ours[0][:-1].clone(), ours[0][-1].clone()


_RULES = (
    Rule("centroids", "colors"),
    Rule(("gpt.token_embeddings.weight", "gpt.sos"), "backbone.embedding.words.weight", AppendedRow()),
    Rule("gpt.position_embeddings.weight", "backbone.embedding.steps.0.table"),
    Rule(_LAYER + ".{ln_1|ln_2}.{weight|bias}", _BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(_LAYER + ".attn.in_proj_{weight|bias}", _BLOCK + ".token_mixer.qkv.{weight|bias}"),
    Rule(_LAYER + ".attn.out_proj.{weight|bias}", _BLOCK + ".token_mixer.proj.{weight|bias}"),
    Rule(_LAYER + ".mlp.{0|2}.{weight|bias}", _BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule("gpt.ln_f.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("gpt.head.weight", "head.linear.weight"),
    Rule("gpt.clf_head.{weight|bias}", (), DROP),
)

FORMATS = (Format("official", ("pixel_gpt",), _RULES, ("gpt.sos", "gpt.token_embeddings.weight"), writes=False),)
