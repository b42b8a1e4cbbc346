"""MetaFormer baselines: timm and the authors.

timm keeps the layers of a stage as 1 x 1 convolutions, but for stages of attention; ours are linear layers everywhere.
The authors keep all downsampling layers in one list and their random matrices as frozen parameters.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import SAME, Identity, PointwiseConv, Tensors, Transform

if TYPE_CHECKING:
    from vitrail.models.metaformer import MetaFormerConfig


PATCHES = "backbone.embedding.patches"
STEM_NORM = "backbone.embedding.steps.0.norm.weight"
ENTRY = "backbone.stages.{s+1}.entry"
ACT = "{scale|bias}"


class PoolingOnly(Identity):
    """Write for timm, which has PoolFormerV2 but neither IdentityFormer nor RandFormer."""

    def write(self, *ours: Tensor, config: "MetaFormerConfig") -> Tensors:
        """Pass, or refuse mixers that timm's model with these tensors does not have."""
        absent = sorted({"identity", "random"} & set(config.token_mixers))
        if absent:
            raise VitrailError(
                f"timm has no MetaFormer with {' and '.join(absent)} mixing; its PoolFormerV2 would give\n"
                "other logits with these tensors. Write for the authors' code: --to official."
            )
        return ours


def _blocks(theirs: str, stage: str, pointwise: Transform) -> tuple[Rule, ...]:
    """Return the rules of the blocks of some stages."""
    theirs, ours = theirs.replace("STAGE", stage), f"backbone.stages.{stage}.blocks.{{i}}."
    return (
        Rule(theirs + "{norm1|norm2}.weight", ours + "{norm1|norm2}.weight"),
        Rule(theirs + "mlp.{fc1|fc2}.weight", ours + "channel_mixer.{fc1|fc2}.weight", pointwise),
        Rule(theirs + f"mlp.act.{ACT}", ours + f"channel_mixer.act.{ACT}"),
        Rule(theirs + "{res_scale1|res_scale2}.scale", ours + "{res_scale1|res_scale2}.gamma"),
    )


def _convolution(theirs: str, stage: str, pointwise: Transform) -> tuple[Rule, ...]:
    """Return the rules of separable convolutions."""
    theirs, ours = theirs.replace("STAGE", stage) + "token_mixer.", f"backbone.stages.{stage}.blocks.{{i}}.token_mixer."
    return (
        Rule(theirs + "{pwconv1|pwconv2}.weight", ours + "{expand|project}.weight", pointwise),
        Rule(theirs + f"act1.{ACT}", ours + f"act.{ACT}"),
        Rule(theirs + "dwconv.weight", ours + "depthwise.weight"),
    )


def _attention(theirs: str, stage: str) -> Rule:
    ours = f"backbone.stages.{stage}.blocks.{{i}}.token_mixer."
    return Rule(theirs.replace("STAGE", stage) + "token_mixer.{qkv|proj}.weight", ours + "{qkv|proj}.weight")


def _head(theirs: str, mlp: bool) -> tuple[Rule, ...]:
    """Return the rules of the classifier after the norm."""
    if not mlp:
        return (Rule(theirs + ".{weight|bias}", "head.linear.{weight|bias}"),)
    return (
        Rule(theirs + ".{fc1|norm}.{weight|bias}", "head.hidden.{0|2}.{weight|bias}"),
        Rule(theirs + ".fc2.{weight|bias}", "head.linear.{weight|bias}"),
    )


_CONV = PointwiseConv()
_TIMM_BLOCK, _OFFICIAL_BLOCK = "stages.STAGE.blocks.{i}.", "stages.STAGE.{i}."
_TIMM = (
    Rule("stem.conv.{weight|bias}", PATCHES + ".proj.{weight|bias}", PoolingOnly()),
    Rule("stem.norm.weight", STEM_NORM),
    Rule("stages.{s+1}.downsample.norm.weight", ENTRY + ".norm.weight"),
    Rule("stages.{s+1}.downsample.conv.{weight|bias}", ENTRY + ".reduction.{weight|bias}"),
    Rule("head.norm.{weight|bias}", "backbone.norm.{weight|bias}"),
)
_TIMM_POOL = (*_TIMM, *_blocks(_TIMM_BLOCK, "{s}", _CONV), *_head("head.fc", mlp=False))
_TIMM_CONV = (
    *_TIMM,
    *_blocks(_TIMM_BLOCK, "{s}", _CONV),
    *_convolution(_TIMM_BLOCK, "{s}", _CONV),
    *_head("head.fc", mlp=True),
)
_TIMM_ATTENTION = (
    *_TIMM,
    *_blocks(_TIMM_BLOCK, "{0|1}", _CONV),
    *_blocks(_TIMM_BLOCK, "{2|3}", SAME),
    *_convolution(_TIMM_BLOCK, "{0|1}", _CONV),
    _attention(_TIMM_BLOCK, "{2|3}"),
    *_head("head.fc", mlp=True),
)


def _official(mlp: bool) -> tuple[Rule, ...]:
    """Return the authors' rules for one kind of head."""
    return (
        Rule("downsample_layers.0.conv.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
        Rule("downsample_layers.0.post_norm.weight", STEM_NORM),
        Rule("downsample_layers.{s+1}.pre_norm.weight", ENTRY + ".norm.weight"),
        Rule("downsample_layers.{s+1}.conv.{weight|bias}", ENTRY + ".reduction.{weight|bias}"),
        Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
        *_blocks(_OFFICIAL_BLOCK, "{s}", SAME),
        *_convolution(_OFFICIAL_BLOCK, "{s}", SAME),
        _attention(_OFFICIAL_BLOCK, "{s}"),
        Rule("stages.{s}.{i}.token_mixer.random_matrix", "backbone.stages.{s}.blocks.{i}.token_mixer.matrix"),
        *_head("head", mlp),
    )


_FAMILY = ("metaformer",)
_TIMM_MARK = "stages.0.blocks.0.mlp.act.scale"
FORMATS = (
    Format("timm", _FAMILY, _TIMM_POOL, (_TIMM_MARK, "head.fc.weight"), answers={"token_mixers": ("pooling",) * 4}),
    Format("timm", _FAMILY, _TIMM_CONV, (_TIMM_MARK, "stages.2.blocks.0.token_mixer.dwconv.weight")),
    Format("timm", _FAMILY, _TIMM_ATTENTION, (_TIMM_MARK, "stages.2.blocks.0.token_mixer.qkv.weight")),
    *(
        Format("official", _FAMILY, _official(mlp), ("downsample_layers.0.post_norm.weight", head))
        for mlp, head in ((False, "head.weight"), (True, "head.fc2.weight"))
    ),
)
