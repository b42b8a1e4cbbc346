"""TNT: timm, and the authors' names, which older files of timm have too."""

from vitrail.weights.formats.vit import BLOCK, POSITION, TOKENS
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import PositionMap, Sections, UnusedZeros

_PATCHES, _STEM = "backbone.embedding.patches", "backbone.embedding.project"
_INNER, _OUTER = BLOCK + ".inner", BLOCK + ".outer"


def _branches(theirs: tuple[str, str, str, str], ours: str) -> tuple[Rule, ...]:
    """Return the rules of an inner or outer block; `theirs` are its norm, attention, norm and MLP."""
    norm1, attention, norm2, mlp = ("blocks.{i}." + name for name in theirs)
    parts = (attention + ".qk.{weight|bias}", attention + ".v.{weight|bias}")
    return (
        Rule(norm1 + ".{weight|bias}", ours + ".norm1.{weight|bias}"),
        Rule(parts, ours + ".token_mixer.qkv.{weight|bias}", Sections(2, 1)),
        Rule(attention + ".proj.{weight|bias}", ours + ".token_mixer.proj.{weight|bias}"),
        Rule(norm2 + ".{weight|bias}", ours + ".norm2.{weight|bias}"),
        Rule(mlp + ".{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


def _projections(norm1: str, norm2: str) -> tuple[Rule, ...]:
    """Return the rules of the projections from words to patches, in the stem and in the blocks."""
    return tuple(
        Rule(f"{theirs}{{{norm1}|proj|{norm2}}}.{{weight|bias}}", ours + ".{norm1|proj|norm2}.{weight|bias}")
        for theirs, ours in (("", _STEM), ("blocks.{i}.", BLOCK + ".project"))
    )


_ENDS = (
    Rule("cls_token", TOKENS),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_TIMM = (
    Rule("pixel_embed.proj.{weight|bias}", _PATCHES + ".conv.{weight|bias}"),
    Rule("pixel_pos", _PATCHES + ".position", PositionMap()),
    Rule("patch_pos", POSITION),
    *_projections("norm1_proj", "norm2_proj"),
    *_branches(("norm_in", "attn_in", "norm_mlp_in", "mlp_in"), _INNER),
    *_branches(("norm_out", "attn_out", "norm_mlp", "mlp"), _OUTER),
    *_ENDS,
)

_OFFICIAL = (
    Rule("patch_embed.proj.{weight|bias}", _PATCHES + ".conv.{weight|bias}"),
    Rule("inner_pos", _PATCHES + ".position"),
    Rule("outer_pos", POSITION),
    Rule("outer_tokens", POSITION, UnusedZeros()),
    *_projections("proj_norm1", "proj_norm2"),
    *_branches(("inner_norm1", "inner_attn", "inner_norm2", "inner_mlp"), _INNER),
    *_branches(("outer_norm1", "outer_attn", "outer_norm2", "outer_mlp"), _OUTER),
    *_ENDS,
)

FORMATS = (
    Format("timm", ("tnt",), _TIMM, ("pixel_embed.proj.weight", "blocks.0.attn_in.qk.weight")),
    Format("official", ("tnt",), _OFFICIAL, ("patch_embed.proj.weight", "blocks.0.inner_attn.qk.weight")),
)
