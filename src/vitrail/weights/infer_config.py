"""Infer config fields from the shapes of tensors."""

import re
from collections.abc import Callable, Mapping
from math import inf, nextafter
from typing import Any

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

_PATCHES = re.compile(r"backbone\.(embedding|stages\.\d+\.entry\.0)\.patches\.proj\.weight")
_STEM = "backbone.embedding.patches."
_BLOCK = re.compile(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.(?!conv\.)")
_REDUCTION = re.compile(r"backbone\.stages\.(\d+)\.blocks\.\d+\.token_mixer\.reduction\.conv\.weight")
_PEG = re.compile(r"backbone\.stages\.\d+\.blocks\.\d+\.conv\.weight")
_UNIT = re.compile(r"backbone\.stages\.\d+\.entry\.conv1\.weight")

# The layer of each head that has a row per class, and how many of its rows are no class.
_CLASS_ROWS = {
    "head.linear.weight": 0,
    "head.main.classifier.weight": 0,  # segmenters
    "head.roi_heads.box_predictor.cls_score.weight": 1,  # detectors: the background
}


def differing_fields(ours: Mapping[str, Tensor], config: object) -> dict[str, Any]:
    """Return the config fields in which tensors differ from a config, as far as shapes determine them.

    Shapes do not determine the number of heads of a ViT, dilations, or fields that are not the size of a tensor.

    Args:
        ours: tensors with our key names.
        config: the config of a variant of their architecture.

    Example:
        >>> from vitrail.models import create_model, make_config
        >>> small = create_model("vit_tiny_patch16_224", dim=24, depth=1, num_heads=1, num_classes=10)
        >>> differing_fields(small.state_dict(), make_config("vit_tiny_patch16_224"))
        {'num_classes': 10, 'dim': 24, 'depth': 1}
    """
    shapes = {_as_backbone(key): tuple(value.shape) for key, value in ours.items()}
    stated = dict(vars(config))
    if "preprocess" in stated:
        stated["image_size"] = stated["preprocess"].size
    measures = {
        **_MEASURES,
        **(_TEXT_MEASURES if "vocab_size" in stated else {}),
        **(_RESTORATION_MEASURES if "upsampler" in stated else {}),
    }
    found = {field: measure(shapes, stated) for field, measure in measures.items() if field in stated}
    return {field: value for field, value in found.items() if value is not None and value != stated[field]}


def has_sizes_of(shapes: Shapes, config: object) -> bool:
    """Return whether width and depth, as far as shapes determine them, are those of a config; cheaper than building it.

    Example:
        >>> from vitrail.models import create_model, make_config
        >>> shapes = {key: value.shape for key, value in create_model("vit_tiny_patch16_224").state_dict().items()}
        >>> [has_sizes_of(shapes, make_config(f"vit_{size}_patch16_224")) for size in ("tiny", "base")]
        [True, False]
    """
    stated = vars(config)
    shapes = {_as_backbone(key): shape for key, shape in shapes.items()}
    try:
        found = {name: _MEASURES[name](shapes, stated) for name in _SIZES if name in stated}
    except IndexError:  # fewer stages than the architecture has
        return False
    return all(value is None or value == stated[name] for name, value in found.items())


def _as_backbone(key: str) -> str:
    """Return the key that a tensor of an encoder or of a shared block has in other architectures."""
    key = re.sub(r"^encoder\.blocks", "backbone.stages.0.blocks", re.sub(r"^embedding", "backbone.embedding", key))
    return key.replace(".blocks.0.block.", ".blocks.0.")


def _num_classes(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the rows of the last layer; 0 without a head, unless the model may have another one or always has one."""
    for key, others in _CLASS_ROWS.items():
        if key in shapes:
            return shapes[key][0] - others
    return None if "head" in stated or isinstance(stated.get("backbone"), str) else 0


def _in_channels(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the input channels of the first convolution."""
    return next((shape[1] for key, shape in shapes.items() if key.startswith(_STEM) and len(shape) == 4), None)


def _blocks(shapes: Shapes) -> list[int]:
    """Return the number of blocks of each stage."""
    found = {(int(key[1]), int(key[2])) for name in shapes if (key := _BLOCK.match(name))}
    return [sum(stage == s for stage, _ in found) for s in range(1 + max((s for s, _ in found), default=-1))]


def _depth(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the layers of the Transformer: of the stage before that of a late class token, or of the last one."""
    if "word_dim" in stated:  # shared layers are stored once
        return None
    return _blocks(shapes)[-2 if "class_depth" in stated else -1]


def _class_depth(shapes: Shapes, stated: Mapping[str, Any]) -> int:
    return _blocks(shapes)[-1]


def _pegs(shapes: Shapes, stated: Mapping[str, Any]) -> int:
    return sum(_PEG.fullmatch(key) is not None for key in shapes)


def _depths(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers of each stage; in a ResNet the entry of a stage is its first unit."""
    blocks, units = _blocks(shapes), sum(_UNIT.fullmatch(key) is not None for key in shapes)
    if not units and "depth" not in stated:
        return tuple(blocks)
    return tuple(1 + n for n in [*blocks, *[0] * units][:units])


def _width(shapes: Shapes, stage: int) -> int | None:
    keys = [f"backbone.stages.{stage}.blocks.0.{norm}.weight" for norm in ("norm1", "outer.norm1", "norm")]
    return next((shapes[key][0] for key in keys if key in shapes), None)


def _dim(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the width of the first stage, of a ResNet's stem, or of a hybrid's encoder."""
    if "depth" in stated:
        return _width(shapes, len(_blocks(shapes)) - 1)
    return shapes.get(_STEM + "conv.weight", (_width(shapes, 0),))[0]


def _dims(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[int | None, ...]:
    return tuple(_width(shapes, stage) for stage in range(len(_blocks(shapes))))


def _num_heads(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[int, ...] | int | None:
    """Return the heads of each stage if a table of relative positions or a cosine scale has one entry for each."""
    mixers = [f"backbone.stages.{s}.blocks.0.token_mixer." for s in range(len(_blocks(shapes)))]
    tables = [shapes.get(mixer + "position.table") for mixer in mixers]
    scales = [shapes.get(mixer + "qk_norm.log_scale") for mixer in mixers]
    heads = tuple(table[1] for table in tables if table) or tuple(scale[0] for scale in scales if scale) or None
    return heads[0] if heads and isinstance(stated["num_heads"], int) else heads


def _reach(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the side of a window or neighborhood, whose table has (2 side - 1)^2 rows."""
    rows = next((shape[0] for key, shape in shapes.items() if key.endswith(".position.table")), None)
    if rows is None and "conv_layers" in stated:  # a CCT's filters, a CVT's patches
        return shapes.get(_STEM + "convs.0.weight", (_patch_size(shapes, stated),))[-1]
    return rows and (round(rows**0.5) + 1) // 2


def _conv_layers(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    return sum(key.startswith(_STEM + "convs.") for key in shapes) or None


def _patch_size(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    return next((shape[-1] for key, shape in shapes.items() if _PATCHES.fullmatch(key)), None)


def _ratio(of: str, field: str) -> Callable[[Shapes, Mapping[str, Any]], float | None]:
    """Return a function for the MLP ratio, exact enough that every hidden width is reproduced."""

    def measure(shapes: Shapes, stated: Mapping[str, Any]) -> float | None:
        names = [f"backbone.stages.{stage}.blocks.0.{of}.fc2.weight" for stage in range(len(_blocks(shapes)))]
        pairs = [(shapes[name][1], _width(shapes, stage)) for stage, name in enumerate(names) if name in shapes]
        pairs = [(hidden, dim) for hidden, dim in pairs if dim]
        if all(int(dim * stated[field]) == hidden for hidden, dim in pairs):
            return None
        ratio = max(hidden / dim for hidden, dim in pairs)  # widths are rounded down: the largest fits all
        exact = all(int(dim * ratio) >= hidden for hidden, dim in pairs)
        return ratio if exact else nextafter(ratio, inf)  # 29 / 100 * 100 is a hair below 29

    return measure


def _layer_scale(shapes: Shapes, stated: Mapping[str, Any]) -> float | None:
    """Return an initial value if the tensors have layer scales and the config has none; the weights replace it."""
    has = any(key.endswith(".scale1.gamma") for key in shapes)
    return 1e-5 if has and stated["layer_scale"] is None else None


def _registers(shapes: Shapes, stated: Mapping[str, Any]) -> int:
    """Return the registers, which have no place in the position table and follow the class token."""
    return shapes.get("backbone.embedding.steps.1.tokens", (1, 1))[1] - 1


def _distilled(shapes: Shapes, stated: Mapping[str, Any]) -> bool:
    return shapes.get("backbone.embedding.steps.0.tokens", (1, 1))[1] == 2


def _distilled_head(shapes: Shapes, stated: Mapping[str, Any]) -> bool:
    """Return whether a distillation token has a head; True without such a token or without any head."""
    one_head = "head.linear.weight" in shapes and "head.distillation.weight" not in shapes
    return not (one_head and _distilled(shapes, stated))


def _mlp_ratios(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the hidden width of the MLPs of each stage as a multiple of its width, if it is not the config's."""
    widths = [_width(shapes, stage) or 1 for stage in range(len(_blocks(shapes)))]
    hidden = [shapes.get(f"backbone.stages.{s}.blocks.0.channel_mixer.fc1.weight", (0,))[0] for s in range(len(widths))]
    same = len(widths) == len(stated["mlp_ratios"]) and hidden == [
        int(width * ratio) for width, ratio in zip(widths, stated["mlp_ratios"], strict=True)
    ]
    return None if same else tuple(h / w for h, w in zip(hidden, widths, strict=True))


def _sr_ratios(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the side of the squares that become keys, stage by stage; none where maps are pooled."""
    stages = range(len(_blocks(shapes)))
    if _linear(shapes, stated):
        return tuple(stated["sr_ratios"]) if len(stages) == len(stated["sr_ratios"]) else (1,) * len(stages)
    found = {int(key[1]): shape[-1] for name, shape in shapes.items() if (key := _REDUCTION.match(name))}
    return tuple(found.get(stage, 1) for stage in stages)


def _linear(shapes: Shapes, stated: Mapping[str, Any]) -> bool:
    return shapes.get("backbone.stages.0.blocks.0.token_mixer.reduction.conv.weight", (0,))[-1] == 1


def _image_size(shapes: Shapes, stated: Mapping[str, Any]) -> int | None:
    """Return the image size of the position table or token MLP if it is not the config's."""
    prefix = next((shape[1] for key, shape in shapes.items() if key.endswith(".tokens")), 0)
    rows = next((shape[1] for key, shape in shapes.items() if key.endswith(".table") and len(shape) == 3), 0)
    cells = rows if rows == round(rows**0.5) ** 2 else rows - prefix  # a square table has no place for the prefix
    cells = cells or shapes.get("backbone.stages.0.blocks.0.token_mixer.mlp.fc1.weight", (0, 0))[1]
    side, patch = round(max(cells, 0) ** 0.5), _patch_size(shapes, stated) or stated.get("patch_size")
    if side == 0 or side * side != cells or patch is None:
        return None
    pixels = patch
    if "depth" in stated and "depths" in stated:  # behind a ResNet
        pixels *= 4 * 2 ** max(len(_depths(shapes, stated)) - 1, 0)
    return None if -(-stated["image_size"] // pixels) == side else side * pixels


def _rows(*keys: str, axis: int = 0) -> Callable[[Shapes, Mapping[str, Any]], int | None]:
    """Return a function for the size of one axis of a table or a layer, the first of these keys that there is."""
    return lambda shapes, stated: next((shapes[key][axis] for key in keys if key in shapes), None)


def _head(shapes: Shapes, stated: Mapping[str, Any]) -> str:
    """Return which head a BERT has."""
    heads = {"head.next.linear.weight": "pretraining", "head.bias": "masked", "head.linear.weight": "classes"}
    return next((head for key, head in heads.items() if key in shapes), "vector")


def _attn_layers(shapes: Shapes, stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the kind of attention in each layer of a Reformer; LSH layers share queries and keys."""
    shared = "backbone.stages.0.blocks.{}.token_mixer.qk.weight"
    return tuple("lsh" if shared.format(block) in shapes else "local" for block in range(_blocks(shapes)[0]))


def _axes(axis: int) -> Callable[[Shapes, Mapping[str, Any]], tuple[int, ...] | None]:
    """Return a function for one axis of the tables of rows and columns of positions."""
    keys = [f"backbone.embedding.steps.0.{table}" for table in ("rows", "columns")]
    return lambda shapes, stated: tuple(shapes[key][axis] for key in keys) if keys[0] in shapes else None


def _norm(shapes: Shapes, stated: Mapping[str, Any]) -> str:
    return "pre" if "encoder_norm.weight" in shapes else "post"


def _form(shapes: Shapes, stated: Mapping[str, Any]) -> str:
    return "marian" if "head.bias" in shapes else "paper"


def _response_norm(shapes: Shapes, stated: Mapping[str, Any]) -> bool:
    """Return whether the MLPs of a ConvNeXt have GRN, as those of V2."""
    return "backbone.stages.0.blocks.0.channel_mixer.act.1.weight" in shapes


_FUSED, _LEVEL = "head.main.decoder.fuse.conv.weight", "head.fpn.inner_blocks.0.0.weight"

_SIZES = ("dim", "dims", "depth", "depths")

_MEASURES: dict[str, Callable[[Shapes, Mapping[str, Any]], Any]] = {
    "num_classes": _num_classes,
    "channels": _rows(_FUSED, _LEVEL),
    "auxiliary_channels": _rows("head.auxiliary.classifier.weight", axis=1),
    "in_channels": _in_channels,
    "dim": _dim,
    "dims": _dims,
    "depth": _depth,
    "depths": _depths,
    "class_depth": _class_depth,
    "pegs": _pegs,
    "num_heads": _num_heads,
    "window_size": _reach,
    "kernel_size": _reach,
    "patch_size": _patch_size,
    "mlp_ratio": _ratio("channel_mixer", "mlp_ratio"),
    "token_ratio": _ratio("token_mixer.mlp", "token_ratio"),
    "conv_layers": _conv_layers,
    "mlp_ratios": _mlp_ratios,
    "sr_ratios": _sr_ratios,
    "linear": _linear,
    "layer_scale": _layer_scale,
    "response_norm": _response_norm,
    "distilled": _distilled,
    "distilled_head": _distilled_head,
    "registers": _registers,
    "image_size": _image_size,
}


def _upsampler(shapes: Shapes, stated: Mapping[str, Any]) -> str:
    """Return the reconstruction of a restoration model."""
    if "head.ups.0.weight" in shapes:
        return "nearest+conv"
    if "head.steps.0.weight" in shapes:
        return "pixelshuffle" if "head.last.weight" in shapes else "pixelshuffledirect"
    return "none"


def _scale(shapes: Shapes, stated: Mapping[str, Any]) -> int:
    """Return the upsampling factor of a restoration model."""
    steps = [shape for key, shape in shapes.items() if re.fullmatch(r"head\.(steps|ups)\.\d+\.weight", key)]
    kind = _upsampler(shapes, stated)
    if kind == "pixelshuffledirect":
        return round((steps[0][0] / shapes["shallow.weight"][1]) ** 0.5)
    if kind == "pixelshuffle" and steps[0][0] == 9 * steps[0][1]:
        return 3
    return 2 ** len(steps)


# Fields of restoration models. The authors' models with windows of 7 remove JPEG artifacts and compute on 0..255.
_RESTORATION_MEASURES: dict[str, Callable[[Shapes, Mapping[str, Any]], Any]] = {
    "in_channels": lambda shapes, stated: shapes["shallow.weight"][1],
    "upsampler": _upsampler,
    "scale": _scale,
    "convolution": lambda shapes, stated: "3conv" if "fuse.2.weight" in shapes else "1conv",
    "pixel_range": lambda shapes, stated: 255.0 if _reach(shapes, stated) == 7 else 1.0,
}

# Fields of text models alone: images have others of the same name.
_TEXT_MEASURES: dict[str, Callable[[Shapes, Mapping[str, Any]], Any]] = {
    "vocab_size": _rows("backbone.embedding.words.weight"),
    "word_dim": _rows("backbone.embedding.words.weight", axis=1),
    "max_length": _rows("backbone.embedding.steps.0.table"),
    "hidden": _rows("backbone.stages.0.blocks.0.channel_mixer.fc1.weight"),
    "attn_layers": _attn_layers,
    "position_shape": _axes(0),
    "position_dims": _axes(1),
    "head": _head,
    "norm": _norm,
    "form": _form,
}
