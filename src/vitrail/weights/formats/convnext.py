"""ConvNeXt V1 and V2: timm, torchvision (V1), Hugging Face and the authors.

timm keeps the MLPs of the sizes up to nano as 1 x 1 convolutions; ours are linear layers in all sizes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import SAME, FlatNorm, PointwiseConv, Tensors, Transform

if TYPE_CHECKING:
    from vitrail.models.convnext import ConvNeXtConfig


PATCHES = "backbone.embedding.patches"
BLOCK = "backbone.stages.{s}.blocks.{i}"
ENTRY = "backbone.stages.{s+1}.entry"
WB = "{weight|bias}"


class SmallAsConv(PointwiseConv):
    """1 x 1 convolutions in timm's sizes up to nano (first width 80), linear layers from tiny on."""

    def write(self, *ours: Tensor, config: "ConvNeXtConfig") -> Tensors:
        """Add the last two dimensions for the small sizes."""
        return super().write(*ours, config=config) if config.dims[0] <= 80 else ours


class ChannelsFirst:
    """Their vector for channels-first maps, `(C, 1, 1)`, is our `(C,)`."""

    def read(self, *theirs: Tensor) -> Tensors:
        """Flatten."""
        return tuple(x.flatten() for x in theirs)

    def write(self, *ours: Tensor, config: "ConvNeXtConfig") -> Tensors:
        """Add the last two dimensions."""
        return tuple(x[:, None, None] for x in ours)


def _block(theirs: str, conv: str, norm: str, mlp: str, scale: str, pointwise: Transform, vector: Transform) -> tuple:
    """Return the rules of one block without response norm."""
    return (
        Rule(f"{theirs}.{conv}.{WB}", f"{BLOCK}.token_mixer.conv.{WB}"),
        Rule(f"{theirs}.{norm}.{WB}", f"{BLOCK}.norm.{WB}"),
        Rule(f"{theirs}.{mlp}.{WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{WB}", pointwise),
        Rule(f"{theirs}.{scale}", f"{BLOCK}.scale.gamma", vector),
    )


def _ends(stem: tuple[str, str], entry: tuple[str, str], norm: str, head: str) -> tuple[Rule, ...]:
    """Return the rules outside the blocks: stem and entries are (convolution, norm)."""
    return (
        Rule(f"{stem[0]}.{WB}", f"{PATCHES}.proj.{WB}"),
        Rule(f"{stem[1]}.{WB}", f"{PATCHES}.norm.{WB}"),
        Rule(f"{entry[0]}.{WB}", f"{ENTRY}.reduction.{WB}"),
        Rule(f"{entry[1]}.{WB}", f"{ENTRY}.norm.{WB}"),
        Rule(f"{norm}.{WB}", f"backbone.norm.{WB}"),
        Rule(f"{head}.{WB}", f"head.linear.{WB}"),
    )


def _response(theirs: str, operation: Transform = SAME) -> Rule:
    return Rule(theirs, f"{BLOCK}.channel_mixer.act.1.{WB}", operation)


_TIMM = (
    *_ends(("stem.0", "stem.1"), ("stages.{s+1}.downsample.1", "stages.{s+1}.downsample.0"), "head.norm", "head.fc"),
    *_block("stages.{s}.blocks.{i}", "conv_dw", "norm", "mlp.{fc1|fc2}", "gamma", SmallAsConv(), SAME),
    _response("stages.{s}.blocks.{i}.mlp.grn.{weight|bias}"),
)
_TORCHVISION = (
    *_ends(
        ("features.0.0", "features.0.1"), ("features.{2s+2}.1", "features.{2s+2}.0"), "classifier.0", "classifier.2"
    ),
    *_block("features.{2s+1}.{i}", "block.0", "block.2", "block.{3|5}", "layer_scale", SAME, ChannelsFirst()),
)
_OFFICIAL = (
    *_ends(
        ("downsample_layers.0.0", "downsample_layers.0.1"),
        ("downsample_layers.{s+1}.1", "downsample_layers.{s+1}.0"),
        "norm",
        "head",
    ),
    *_block("stages.{s}.{i}", "dwconv", "norm", "{pwconv1|pwconv2}", "gamma", SAME, SAME),
    _response("stages.{s}.{i}.grn.{gamma|beta}", FlatNorm()),
)


def huggingface_rules(prefix: str) -> tuple[Rule, ...]:
    """Return the rules for `convnext.` or `convnextv2.` as the prefix."""
    block = prefix + "encoder.stages.{s}.layers.{i}"
    entry = prefix + "encoder.stages.{s+1}.downsampling_layer."
    embeddings = prefix + "embeddings."
    return (
        *_ends(
            (embeddings + "patch_embeddings", embeddings + "layernorm"),
            (entry + "1", entry + "0"),
            prefix + "layernorm",
            "classifier",
        ),
        *_block(block, "dwconv", "layernorm", "{pwconv1|pwconv2}", "layer_scale_parameter", SAME, SAME),
        *([_response(block + ".grn.{weight|bias}", FlatNorm())] if "v2" in prefix else []),
    )


def huggingface_fields(c: "ConvNeXtConfig") -> dict[str, Any]:
    """Return the fields in which transformers states a ConvNeXt."""
    version = "V2" if c.response_norm else ""
    return {
        "architectures": [f"ConvNext{version}ForImageClassification"],
        "model_type": f"convnext{version.lower()}",
        "num_channels": c.in_channels,
        "patch_size": 4,
        "num_stages": len(c.dims),
        "hidden_sizes": list(c.dims),
        "depths": list(c.depths),
        "hidden_act": "gelu",
        "layer_norm_eps": c.last_norm_eps,
        "drop_path_rate": c.drop_path,
        **({} if c.response_norm else {"layer_scale_init_value": c.layer_scale}),
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    eps = {"layer_norm_eps": 1e-12, **said}  # the default of transformers, in the last norm alone
    names = {"drop_path": "drop_path_rate", "layer_scale": "layer_scale_init_value"}
    return renamed(eps, **names, last_norm_eps="layer_norm_eps")


_FAMILY = ("convnext",)
FORMATS = (
    Format("timm", _FAMILY, _TIMM, ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight")),
    Format("torchvision", _FAMILY, _TORCHVISION, ("features.1.0.layer_scale",)),
    Format("official", _FAMILY, _OFFICIAL, ("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight")),
    *(
        Format(
            "huggingface",
            _FAMILY,
            huggingface_rules(prefix),
            (prefix + "embeddings.patch_embeddings.weight", prefix + mark),
            describe=huggingface_fields,
            states=_states,
        )
        for prefix, mark in (
            ("(convnext.)", "encoder.stages.0.layers.0.layer_scale_parameter"),
            ("(convnextv2.)", "encoder.stages.0.layers.0.grn.weight"),
        )
    ),
)
