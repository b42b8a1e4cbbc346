"""DINOv2: timm and the authors, without and with registers."""

from vitrail.weights.formats.vit import BLOCK, PATCHES, timm_blocks
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP, FoldedClassPlace, PrefixSections

_FIRST, _SECOND = "backbone.embedding.steps.0.", "backbone.embedding.steps.1."
_TRUNK = (
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("blocks.{i}.{ls1|ls2}.gamma", BLOCK + ".{scale1|scale2}.gamma"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)
_PLAIN = (Rule("cls_token", _FIRST + "tokens"), Rule("pos_embed", _SECOND + "table"), *_TRUNK)
_TIMM_REGISTERS = (
    Rule(("cls_token", "reg_token"), _SECOND + "tokens", PrefixSections()),
    Rule("pos_embed", _FIRST + "table"),
    *_TRUNK,
)
_AUTHORS = (  # the token of masked patches, and the layers of SwiGLU by their own names
    Rule("mask_token", (), DROP),
    Rule("blocks.{i}.mlp.{w12|w3}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)
_REGISTERS = (
    Rule(("cls_token", "register_tokens", "pos_embed"), (_SECOND + "tokens", _FIRST + "table"), FoldedClassPlace()),
    *_TRUNK,
    *_AUTHORS,
)

_FAMILY, _SCALE = ("dinov2",), "blocks.0.ls1.gamma"
FORMATS = (
    Format("timm", _FAMILY, _PLAIN, ("cls_token", "pos_embed", _SCALE)),
    Format("timm", _FAMILY, _TIMM_REGISTERS, ("reg_token", _SCALE)),
    Format("official", _FAMILY, (*_PLAIN, *_AUTHORS), ("cls_token", "mask_token", _SCALE), writes=False),
    Format("official", _FAMILY, _REGISTERS, ("register_tokens", _SCALE), writes=False),
)
