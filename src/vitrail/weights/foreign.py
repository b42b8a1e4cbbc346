"""Names of architectures outside the catalogue, by marker keys of their checkpoints."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

Shapes = Mapping[str, tuple[int, ...]]


class Foreign(NamedTuple):
    """An architecture outside the catalogue.

    Args:
        name: its name, without size.
        marks: regular expressions; each is the whole of at least one key.
        condition: a further condition on the shapes.
        size: `shapes -> suffix of the name`, such as `-B/16`.
    """

    name: str
    marks: tuple[str, ...]
    condition: Callable[[Shapes], bool] = lambda shapes: True
    size: Callable[[Shapes], str] = lambda shapes: ""


_LETTERS = {192: "Ti", 384: "S", 512: "M", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1536: "G"}


def _vit_size(shapes: Shapes) -> str:
    """Return width letter and patch size from the patch embedding of a plain ViT."""
    shape = next((shape for key, shape in shapes.items() if key.endswith(_PATCHES) and len(shape) == 4), None)
    return "" if shape is None else f"-{_LETTERS.get(shape[0], shape[0])}/{shape[-1]}"


_PATCHES = (
    "patch_embed.proj.weight",
    "patch_embeddings.projection.weight",
    "visual.conv1.weight",
    "patch_embedding.weight",
)


def _resnet_depth(shapes: Shapes) -> str:
    """Return the layers of a ResNet from its blocks of two or three convolutions."""
    blocks = {match[0] for key in shapes if (match := re.match(r"layer\d\.\d+", key))}
    return f"-{2 + (3 if 'layer1.0.conv3.weight' in shapes else 2) * len(blocks)}"


def _places(shapes: Shapes) -> int:
    return shapes.get("pos_embed", (0, 0))[1]


def _no_class_place(shapes: Shapes) -> bool:
    """Return whether the positions are those of a square grid without a class token."""
    return round(_places(shapes) ** 0.5) ** 2 == _places(shapes) > 0


def _plain_mlp(shapes: Shapes) -> bool:
    return shapes["blocks.0.mlp.fc1.weight"][0] == shapes["blocks.0.mlp.fc2.weight"][1]


def _grouped(shapes: Shapes) -> bool:
    return shapes["layer1.0.conv2.weight"][0] != shapes["layer1.0.conv2.weight"][1]


def _wide(shapes: Shapes) -> bool:
    return not _grouped(shapes) and shapes["layer1.0.conv1.weight"][0] != shapes["conv1.weight"][0]


_SE, _STEM = r"blocks\.\d+\.\d+\.se\.conv_reduce\.weight", r"conv_stem\.weight"
_NORMED_STEM = r"(?:.*\.)?stem\.conv1\.gain"
FOREIGN = (
    Foreign("BEiT", (r"blocks\.0\.gamma_1", r"blocks\.0\.attn\.relative_position_bias_table"), size=_vit_size),
    Foreign("BEiT", (r"(?:beit\.)?encoder\.layer\.0\.lambda_1",), size=_vit_size),
    Foreign("BEiT", (r"beit\..*",), size=_vit_size),
    Foreign("data2vec", (r"data2vec_vision\..*",), size=_vit_size),
    Foreign(
        "DINOv3",
        (r"(?:reg_token|storage_tokens)", r"blocks\.0\.(?:gamma_1|ls1\.gamma)"),
        lambda s: not _places(s),
        _vit_size,
    ),
    Foreign("EVA", (r"blocks\.0\.attn\.q_bias", r"blocks\.0\.mlp\.fc[12]\.weight", "cls_token"), _plain_mlp, _vit_size),
    Foreign(
        "DeiT III",
        (r"blocks\.0\.ls1\.gamma", "cls_token", r"blocks\.0\.mlp\.fc1\.weight"),
        lambda s: _no_class_place(s) and "reg_token" not in s,
        _vit_size,
    ),
    Foreign("CLIP ViT", (r"norm_pre\.weight", "cls_token"), size=_vit_size),
    Foreign("CLIP ViT", (r"visual\.transformer\.resblocks\.0\.attn\.in_proj_weight",), size=_vit_size),
    Foreign("CLIP ViT", (r"vision_model\.pre_layrnorm\.weight",), size=_vit_size),
    Foreign(
        "SAM image encoder",
        (r"(?:image_encoder\.)?blocks\.0\.attn\.rel_pos_h", r"(?:image_encoder\.)?neck\.0\.weight"),
        size=_vit_size,
    ),
    Foreign("masked autoencoder (MAE)", (r"decoder_blocks\.0\..*", r"decoder_pred\.weight"), size=_vit_size),
    Foreign("Hiera", (r"blocks\.\d+\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight", "pos_embed(?:_spatial)?")),
    Foreign("PiT", (r"transformers\.0\.blocks\.0\.attn\.qkv\.weight",)),
    Foreign("VOLO", (r"network\.0\.0\.attn\.attn\.weight",)),
    Foreign("MaxViT", (r"stages\.0\.blocks\.0\.attn_block\.norm1\.weight",)),
    Foreign("CoAtNet", (r"stages\.0\.blocks\.0\.conv1_1x1\.weight", r"stages\.2\.blocks\.0\.attn\.qkv\.weight")),
    Foreign("LeViT", (r"stem\.conv1\.linear\.weight",)),
    Foreign("MobileViT", (r"stages\.\d+\.\d+\.transformer\.0\.attn\.qkv\.weight",)),
    Foreign("EdgeNeXt", (r"stages\.\d+\.blocks\.\d+\.xca\.qkv\.weight",)),
    Foreign("EfficientFormer", (r"stages\.0\.blocks\.0\.ls1\.gamma", r"stem\.norm2\.running_var")),
    Foreign("DaViT", (r"stages\.0\.blocks\.0\.0\.cpe2\.proj\.weight",)),
    Foreign("MViTv2", (r"stages\.0\.blocks\.0\.attn\.pool_k\.weight",)),
    Foreign("FocalNet", (r"layers\.0\.blocks\.0\.modulation\.f\.weight",)),
    Foreign("GCViT", (r"stages\.0\.global_block\..*",)),
    Foreign("FastViT", (r"stem\.0\.conv_kxk\.0\.conv\.weight",)),
    Foreign("Visformer", ("pos_embed1", r"stage2\.0\.attn\.qkv\.weight")),
    Foreign("gMLP", (r"blocks\.0\.mlp_channels\.gate\.proj\.weight",)),
    Foreign("ResMLP", (r"blocks\.0\.norm1\.alpha",)),
    Foreign("ConvMixer", (r"blocks\.0\.0\.fn\.0\.weight",)),
    Foreign("Sequencer", (r"stages\.0\.blocks\.0\.rnn_tokens\.rnn_v\.weight_ih_l0",)),
    Foreign("EfficientNet", (_STEM, r"blocks\.0\.0\.se\.conv_reduce\.weight")),
    Foreign("EfficientNet", (r"features\.1\.0\.block\.1\.fc1\.weight",)),
    Foreign("GhostNet", (r"blocks\.0\.0\.ghost1\.cheap_operation\.0\.weight",)),
    Foreign("MobileNetV3", (_STEM, _SE)),
    Foreign("MobileNetV2 or MnasNet", (_STEM, r"blocks\.\d+\.\d+\.conv_pwl\.weight")),
    Foreign("MobileNetV2", (r"features\.1\.conv\.0\.0\.weight",)),
    Foreign("RegNet", (r"s1\.b1\.conv1\.conv\.weight",)),
    Foreign("RegNet", (r"trunk_output\.block1\..*",)),
    Foreign("RepVGG", (r"stages\.0\.0\.conv_kxk\.conv\.weight", r"stem\.conv_kxk\.conv\.weight")),
    Foreign("NFNet", (_NORMED_STEM,)),
    Foreign("DenseNet", (r"features\.denseblock1\.denselayer1\.conv1\.weight",)),
    Foreign("VGG", (r"features\.0\.weight", r"(?:classifier\.6|pre_logits\.fc1)\.weight")),
    Foreign("Inception v3", (r"Conv2d_1a_3x3\.conv\.weight", r"Mixed_6c\..*")),
    Foreign("HRNet", (r"stage4\.0\.branches\.0\.0\.conv1\.weight",)),
    Foreign("Res2Net", (r"layer1\.0\.convs\.0\.weight",)),
    Foreign("ResNeSt", (r"layer1\.0\.conv2\.fc1\.weight",)),
    Foreign("SE-ResNet", (r"layer1\.0\.se\.fc1\.weight",), size=_resnet_depth),
    Foreign("ResNeXt", (r"layer1\.0\.conv3\.weight", r"layer1\.0\.conv2\.weight"), _grouped, _resnet_depth),
    Foreign("Wide ResNet", (r"layer1\.0\.conv3\.weight", r"conv1\.weight"), _wide, _resnet_depth),
    Foreign(
        "ResNet",
        (r"layer1\.0\.conv2\.weight", r"layer4\.0\.downsample\.0\.weight", r"fc\.weight"),
        lambda s: "layer1.0.conv3.weight" not in s,
        lambda shapes: f"{_resnet_depth(shapes)} (of basic blocks)",
    ),
)


def foreign_name(shapes: Shapes) -> str | None:
    """Return the name of the architecture that a checkpoint is of, if it is a known one outside the catalogue.

    Args:
        shapes: shape of each tensor, by the library's key.

    Example:
        >>> foreign_name({"features.denseblock1.denselayer1.conv1.weight": (128, 64, 1, 1)})
        'DenseNet'
    """
    for known in FOREIGN:
        marked = all(any(_compiled(mark).fullmatch(key) for key in shapes) for mark in known.marks)
        if marked and known.condition(shapes):
            return known.name + known.size(shapes)
    return None


@cache
def _compiled(mark: str) -> re.Pattern[str]:
    return re.compile(mark)
