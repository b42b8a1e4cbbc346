"""DiNAT_s: the authors. Its blocks are NAT's, its patches and mergings Swin's."""

from vitrail.weights.formats.nat import PATCHES, official_blocks, official_ends
from vitrail.weights.keymap import Format, Rule

_OFFICIAL = (
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *official_ends(),
    *official_blocks("layers.{s}"),
)

FORMATS = (Format("official", ("dinat_s",), _OFFICIAL, ("patch_embed.proj.weight", "layers.0.blocks.0.attn.rpb")),)
