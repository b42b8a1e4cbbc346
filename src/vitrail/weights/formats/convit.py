"""ConViT: timm, which keeps the authors' names.

Their blocks are numbered through; ours are two stages, the second with the class token. So the number of gated blocks
(10 in the published models) decides where a block goes: one format each, the fewest first.
"""

from vitrail.weights.formats.vit import PATCHES
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import Sections


def _branches(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules that both kinds of blocks share."""
    return (
        Rule(theirs + ".{norm1|norm2}.{weight|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule(theirs + ".attn.proj.{weight|bias}", ours + ".token_mixer.proj.{weight|bias}"),
        Rule(theirs + ".mlp.{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


def _timm(gated: int) -> tuple[Rule, ...]:
    """Return timm's rules for so many gated blocks."""
    numbers = f"{{{'|'.join(map(str, range(gated)))}}}" if gated > 1 else "0"
    local, mixer = f"blocks.{numbers}", f"backbone.stages.0.blocks.{numbers}.token_mixer"
    last, ours = f"blocks.{{i+{gated}}}", "backbone.stages.1.blocks.{i}"
    return (
        Rule("cls_token", "backbone.stages.1.entry.tokens"),
        Rule("pos_embed", "backbone.embedding.steps.0.table"),
        Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
        *_branches(local, mixer.removesuffix(".token_mixer")),
        Rule((local + ".attn.qk.weight", local + ".attn.v.weight"), mixer + ".qkv.weight", Sections(2, 1)),
        Rule(local + ".attn.pos_proj.{weight|bias}", mixer + ".position.{slope|level}"),
        Rule(local + ".attn.gating_param", mixer + ".attend.gate"),
        *_branches(last, ours),
        Rule(last + ".attn.qkv.weight", ours + ".token_mixer.qkv.weight"),
        Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
        Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
    )


def _marks(gated: int) -> tuple[str, ...]:
    return (f"blocks.{gated - 1}.attn.gating_param", f"blocks.{gated}.attn.qkv.weight")


FORMATS = tuple(Format("timm", ("convit",), _timm(gated), _marks(gated)) for gated in range(1, 13))
