"""ResNet: torchvision, whose keys timm has too, and Hugging Face."""

from typing import Any

from vitrail.weights.keymap import Format, Rule

_BN = "{weight|bias|running_mean|running_var|num_batches_tracked}"
_STEM = "backbone.embedding.patches.conv."
_ENTRY, _BLOCK = "backbone.stages.{s}.entry.", "backbone.stages.{s}.blocks.{i}."


def _torchvision(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of one bottleneck."""
    return (
        Rule(theirs + "{conv1|conv2|conv3}.weight", ours + "{conv1|conv2|conv3}.weight"),
        Rule(theirs + f"{{bn1|bn2|bn3}}.{_BN}", ours + f"{{norm1|norm2|norm3}}.{_BN}"),
    )


def _huggingface(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of one bottleneck."""
    return (
        Rule(theirs + "layer.{0|1|2}.convolution.weight", ours + "{conv1|conv2|conv3}.weight"),
        Rule(theirs + f"layer.{{0|1|2}}.normalization.{_BN}", ours + f"{{norm1|norm2|norm3}}.{_BN}"),
    )


TORCHVISION = (
    Rule("conv1.weight", _STEM + "0.weight"),
    Rule(f"bn1.{_BN}", _STEM + f"1.{_BN}"),
    *_torchvision("layer{s+1}.0.", _ENTRY),
    *_torchvision("layer{s+1}.{i+1}.", _BLOCK),
    Rule("layer{s+1}.0.downsample.0.weight", _ENTRY + "proj.weight"),
    Rule(f"layer{{s+1}}.0.downsample.1.{_BN}", _ENTRY + f"proj_norm.{_BN}"),
    Rule("fc.{weight|bias}", "head.linear.{weight|bias}"),
)
_HUGGINGFACE = (
    Rule("resnet.embedder.embedder.convolution.weight", _STEM + "0.weight"),
    Rule(f"resnet.embedder.embedder.normalization.{_BN}", _STEM + f"1.{_BN}"),
    *_huggingface("resnet.encoder.stages.{s}.layers.0.", _ENTRY),
    *_huggingface("resnet.encoder.stages.{s}.layers.{i+1}.", _BLOCK),
    Rule("resnet.encoder.stages.{s}.layers.0.shortcut.convolution.weight", _ENTRY + "proj.weight"),
    Rule(f"resnet.encoder.stages.{{s}}.layers.0.shortcut.normalization.{_BN}", _ENTRY + f"proj_norm.{_BN}"),
    Rule("classifier.1.{weight|bias}", "head.linear.{weight|bias}"),
)


def _describe(config: Any) -> dict[str, Any]:
    widths = [4 * config.dim * 2**i for i in range(len(config.depths))]
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "num_channels": config.in_channels,
        "embedding_size": config.dim,
        "hidden_sizes": widths,
        "depths": list(config.depths),
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "num_labels": config.num_classes,
    }


FORMATS = (
    Format(
        "torchvision",
        ("resnet",),
        TORCHVISION,
        ("conv1.weight", "layer1.0.conv3.weight", "layer1.0.bn3.weight"),
        shared_with=("timm",),
    ),
    Format(
        "huggingface",
        ("resnet",),
        _HUGGINGFACE,
        ("resnet.embedder.embedder.convolution.weight", "resnet.encoder.stages.0.layers.0.layer.2.convolution.weight"),
        describe=_describe,
    ),
)
