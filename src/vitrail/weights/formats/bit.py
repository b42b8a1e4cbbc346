"""BiT ResNetV2: timm, Hugging Face and the authors' npz files.

The first unit of a stage changes width and size, so it is the entry of our stage; their unit i + 1 is our block i.
"""

from collections.abc import Mapping
from typing import Any

from vitrail.parts.bottlenecks import GROUPS
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import Kernel, PointwiseConv, PointwiseKernel

STAGE = "backbone.stages.{s}"
STEM, NORM, HEAD = (
    "backbone.embedding.patches.conv.weight",
    "backbone.norm.0.{weight|bias}",
    "head.linear.{weight|bias}",
)
_NUMBERED_NORMS, _NUMBERED_CONVS = "{norm1|norm2|norm3}.{weight|bias}", "{conv1|conv2|conv3}.weight"


def _units(theirs: str) -> tuple[Rule, ...]:
    """Return the rules of the stages for libraries that number convolutions and norms as we do."""
    return tuple(
        rule
        for their_unit, our_unit in ((theirs + ".0.", ".entry."), (theirs + ".{i+1}.", ".blocks.{i}."))
        for rule in (
            Rule(their_unit + _NUMBERED_NORMS, STAGE + our_unit + _NUMBERED_NORMS),
            Rule(their_unit + _NUMBERED_CONVS, STAGE + our_unit + _NUMBERED_CONVS),
        )
    ) + (Rule(theirs + ".0.downsample.conv.weight", STAGE + ".entry.proj.weight"),)


_TIMM = (
    Rule("stem.conv.weight", STEM),
    *_units("stages.{s}.blocks"),
    Rule("norm.{weight|bias}", NORM),
    Rule("head.fc.{weight|bias}", HEAD, PointwiseConv()),
)

_HUGGINGFACE = (
    Rule("(bit.)embedder.convolution.weight", STEM),
    *_units("(bit.)encoder.stages.{s}.layers"),
    Rule("(bit.)norm.{weight|bias}", NORM),
    Rule("classifier.1.{weight|bias}", HEAD),
)

_CONV = "/standardized_conv2d/kernel"


def _official_unit(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of one kind of unit, whose three layers the authors call a, b and c."""
    return (
        Rule(theirs + "{a|b|c}/group_norm/{gamma|beta}", ours + _NUMBERED_NORMS),
        Rule(theirs + "{a|b|c}" + _CONV, ours + _NUMBERED_CONVS, Kernel()),
    )


_OFFICIAL = (
    Rule("resnet/root_block" + _CONV, STEM, Kernel()),
    *_official_unit("resnet/block{s+1}/unit01/", STAGE + ".entry."),
    *_official_unit("resnet/block{s+1}/unit{i+2:02}/", STAGE + ".blocks.{i}."),
    Rule("resnet/block{s+1}/unit01/a/proj" + _CONV, STAGE + ".entry.proj.weight", Kernel()),
    Rule("resnet/group_norm/{gamma|beta}", NORM),
    Rule("resnet/head/conv2d/kernel", "head.linear.weight", PointwiseKernel()),
    Rule("resnet/head/conv2d/bias", "head.linear.bias"),
)


def _config(c: Any) -> dict[str, Any]:
    return {
        "architectures": ["BitForImageClassification"],
        "model_type": "bit",
        "num_channels": c.in_channels,
        "embedding_size": c.dim,
        "hidden_sizes": [4 * c.dim * 2**i for i in range(len(c.depths))],
        "depths": list(c.depths),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "num_groups": GROUPS,
        "global_padding": None,  # "SAME" pads the right and lower border of strided convolutions only
        "embedding_dynamic_padding": False,
        "output_stride": 32,
        "drop_path_rate": c.drop_path,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(said, drop_path="drop_path_rate")


FORMATS = (
    Format("timm", ("bit",), _TIMM, ("stem.conv.weight", "stages.0.blocks.0.norm3.weight")),
    Format(
        "huggingface", ("bit",), _HUGGINGFACE, ("(bit.)embedder.convolution.weight",), describe=_config, states=_states
    ),
    Format("official", ("bit",), _OFFICIAL, ("resnet/root_block" + _CONV,)),
)
