"""CaiT: timm, which keeps the authors' names."""

from vitrail.weights.formats.vit import PATCHES
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import Concat

_BLOCK, _CLASS_BLOCK = "backbone.stages.0.blocks.{i}", "backbone.stages.1.blocks.{i}"


def _branches(theirs: str, ours: str, scales: str = "{gamma_1|gamma_2}") -> tuple[Rule, ...]:
    """Return the rules that both kinds of blocks share."""
    return (
        Rule(theirs + ".{norm1|norm2}.{weight|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule(f"{theirs}.{scales}", ours + ".{scale1|scale2}.gamma"),
        Rule(theirs + ".attn.proj.{weight|bias}", ours + ".token_mixer.proj.{weight|bias}"),
        Rule(theirs + ".mlp.{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


def class_blocks(theirs: str, scales: str = "{gamma_1|gamma_2}") -> tuple[Rule, ...]:
    """Return the rules of class attention in timm, whose queries, keys and values are layers of their own."""
    kv = tuple(f"{theirs}.attn.{part}.{{weight|bias}}" for part in "kv")
    return (
        Rule(theirs + ".attn.q.{weight|bias}", _CLASS_BLOCK + ".token_mixer.q.{weight|bias}"),
        Rule(kv, _CLASS_BLOCK + ".token_mixer.kv.{weight|bias}", Concat(0, 2)),
        *_branches(theirs, _CLASS_BLOCK, scales),
    )


_TIMM = (
    Rule("cls_token", "backbone.stages.1.entry.tokens"),
    Rule("pos_embed", "backbone.embedding.steps.0.table"),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *_branches("blocks.{i}", _BLOCK),
    Rule("blocks.{i}.attn.qkv.{weight|bias}", _BLOCK + ".token_mixer.qkv.{weight|bias}"),
    Rule(
        "blocks.{i}.attn.{proj_l|proj_w}.{weight|bias}",
        _BLOCK + ".token_mixer.attend.{before|after}.{weight|bias}",
    ),
    *class_blocks("blocks_token_only.{i}"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_MARKS = ("blocks.0.attn.proj_l.weight", "blocks_token_only.0.attn.q.weight")
FORMATS = (Format("timm", ("cait",), _TIMM, _MARKS), Format("official", ("cait",), _TIMM, _MARKS))
