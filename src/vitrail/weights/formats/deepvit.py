"""DeepViT: the authors' names, which are DeiT's with a mixing of heads."""

from vitrail.weights.formats.vit import BLOCK, PATCHES, POSITION, TOKENS, timm_blocks
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import PointwiseConv

_AFTER = BLOCK + ".token_mixer.attend.after"
_OFFICIAL = (
    Rule("cls_token", TOKENS),
    Rule("pos_embed", POSITION),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("blocks.{i}.attn.reatten_matrix.{weight|bias}", _AFTER + ".0.{weight|bias}", PointwiseConv()),
    Rule(
        "blocks.{i}.attn.var_norm.{weight|bias|running_mean|running_var|num_batches_tracked}",
        _AFTER + ".1.{weight|bias|running_mean|running_var|num_batches_tracked}",
    ),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

FORMATS = (Format("official", ("deepvit",), _OFFICIAL, ("cls_token", "blocks.0.attn.reatten_matrix.weight")),)
