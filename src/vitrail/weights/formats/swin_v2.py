"""Swin V2: timm, torchvision, Hugging Face and the authors.

torchvision stores a bias of the keys and sets it to zero in each forward pass: it is dropped, and written as zeros.
Stored tables of offsets, indices and masks depend on nothing learned, but give the windows, which weights do not.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.parts.log_spaced_position import log_offsets
from vitrail.parts.positions import relative_index
from vitrail.weights.formats.swin import BLOCK, merging, outer_rules
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import DROP, Concat, KeyBias

if TYPE_CHECKING:
    from vitrail.models.swin_v2 import SwinV2Config


MIXER = BLOCK + ".token_mixer"
QKV = MIXER + ".qkv"
_BIASES = (QKV + ".q_bias", QKV + ".v_bias")


def _blocks(theirs: str, fc1: str = "mlp.fc1", fc2: str = "mlp.fc2") -> tuple[Rule, ...]:
    """Return the rules of the blocks that timm, the authors and torchvision share."""
    return (
        Rule(theirs + ".{norm1|norm2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
        Rule(theirs + ".attn.qkv.weight", QKV + ".linear.weight"),
        Rule(theirs + ".attn.proj.{weight|bias}", MIXER + ".proj.{weight|bias}"),
        Rule(theirs + ".attn.logit_scale", MIXER + ".qk_norm.log_scale"),
        Rule(theirs + ".attn.cpb_mlp.0.{weight|bias}", MIXER + ".position.mlp.0.{weight|bias}"),
        Rule(f"{theirs}.{{{fc1}|{fc2}}}.{{weight|bias}}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


class OffsetTables:
    """Offsets and index that torchvision stores with each layer: forgotten when read, computed when written."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Keep the weights of the bias alone."""
        return theirs[:1]

    def write(self, *ours: Tensor, config: "SwinV2Config") -> tuple[Tensor, ...]:
        """Add the tables of the window.

        Raises:
            VitrailError: if a stage has another window, or was pre-trained with one.
        """
        window = config.window_size
        if config.pretrained_windows or _sides(config)[-1] < window:
            raise VitrailError(
                "torchvision's Swin V2 has one window for all stages and counts offsets in its units. Here the last map"
                f" has {_sides(config)[-1]} cells,\nthe window {window}, and pretrained_windows="
                f"{config.pretrained_windows}: its logits would differ there. Write for timm or huggingface instead."
            )
        offsets = log_offsets(window, window).unflatten(0, (2 * window - 1, -1))[None]
        return ours[0], offsets, relative_index(window, window).flatten()


def _sides(c: Any) -> list[int]:
    """Return the side of the map of each stage, in cells."""
    return [-(-c.preprocess.size // (c.patch_size * 2**stage)) for stage in range(len(c.depths))]


_TIMM_BLOCK = "layers.{s}.blocks.{i}"
_TIMM_BLOCKS = (
    *_blocks(_TIMM_BLOCK),
    Rule(_TIMM_BLOCK + ".attn.{q_bias|v_bias}", QKV + ".{q_bias|v_bias}"),
    Rule(_TIMM_BLOCK + ".attn.cpb_mlp.2.weight", MIXER + ".position.mlp.2.weight"),
    Rule(_TIMM_BLOCK + ".attn.{relative_coords_table|relative_position_index}", (), DROP),
    Rule(_TIMM_BLOCK + ".attn_mask", (), DROP),
)
_TIMM = (
    *outer_rules("patch_embed.proj", "patch_embed.norm", "norm", "head.fc"),
    *_TIMM_BLOCKS,
    *merging("layers.{s+1}.downsample"),
)
_OFFICIAL = (
    *outer_rules("patch_embed.proj", "patch_embed.norm", "norm", "head"),
    *_TIMM_BLOCKS,
    *merging("layers.{s}.downsample"),
)

_TV_BLOCK = "features.{2s+1}.{i}"
_TV_TABLES = (".attn.cpb_mlp.2.weight", ".attn.relative_coords_table", ".attn.relative_position_index")
_TORCHVISION = (
    *outer_rules("features.0.0", "features.0.2", "norm", "head"),
    *_blocks(_TV_BLOCK, "mlp.0", "mlp.3"),
    Rule(_TV_BLOCK + ".attn.qkv.bias", _BIASES, KeyBias()),
    Rule(
        tuple(_TV_BLOCK + key for key in _TV_TABLES),
        MIXER + ".position.mlp.2.weight",
        OffsetTables(),
    ),
    *merging("features.{2s+2}"),
)

_HF_BLOCK = "(swinv2.)encoder.layers.{s}.blocks.{i}"
_HF_SELF = _HF_BLOCK + ".attention.self"
_HUGGINGFACE = (
    *outer_rules(
        "(swinv2.)embeddings.patch_embeddings.projection",
        "(swinv2.)embeddings.norm",
        "(swinv2.)layernorm",
        "classifier",
    ),
    *merging("(swinv2.)encoder.layers.{s}.downsample"),
    Rule(_HF_BLOCK + ".{layernorm_before|layernorm_after}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(
        tuple(f"{_HF_SELF}.{part}.weight" for part in ("query", "key", "value")), QKV + ".linear.weight", Concat(0, 3)
    ),
    Rule(_HF_SELF + ".{query|value}.bias", QKV + ".{q_bias|v_bias}"),
    Rule(_HF_SELF + ".logit_scale", MIXER + ".qk_norm.log_scale"),
    Rule(_HF_SELF + ".continuous_position_bias_mlp.{j}.{weight|bias}", MIXER + ".position.mlp.{j}.{weight|bias}"),
    Rule(_HF_SELF + ".{relative_coords_table|relative_position_index}", (), DROP),
    Rule(_HF_BLOCK + ".attention.output.dense.{weight|bias}", MIXER + ".proj.{weight|bias}"),
    Rule(_HF_BLOCK + ".{intermediate|output}.dense.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
)


def _config(c: Any) -> dict[str, Any]:
    if c.edge != "official" and any(side % min(side, c.window_size) for side in _sides(c)):
        raise VitrailError(
            f"transformers' Swin V2 pads as edge=official, and this one as edge={c.edge}; at {c.preprocess.size} pixels"
            "\nits maps are padded: its weights would give other logits there. Write for timm instead."
        )
    return {
        "architectures": ["Swinv2ForImageClassification"],
        "model_type": "swinv2",
        "image_size": c.preprocess.size,
        "patch_size": c.patch_size,
        "num_channels": c.in_channels,
        "embed_dim": c.dim,
        "depths": list(c.depths),
        "num_heads": list(c.num_heads),
        "window_size": c.window_size,
        "pretrained_window_sizes": list(c.pretrained_windows or [0] * len(c.depths)),
        "mlp_ratio": c.mlp_ratio,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": c.norm_eps,
        "use_absolute_embeddings": False,
        "drop_path_rate": c.drop_path,
    }


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    windows = said.get("pretrained_window_sizes") or ()
    names = {"image_size": "image_size", "drop_path": "drop_path_rate", "mlp_ratio": "mlp_ratio"}
    return renamed(said, **names, window_size="window_size", norm_eps="layer_norm_eps") | {
        "pretrained_windows": tuple(windows) if any(windows) else ()
    }


_STAGE = re.compile(r"(?:layers|features)\.(\d+)\.")


def _stored(tensors: Mapping[str, Tensor], ending: str, ndim: int) -> dict[int, Tensor]:
    """Return a stored table of each stage, by the number that the library gives the stage."""
    found: dict[int, Tensor] = {}
    for key, value in tensors.items():
        if key.endswith(ending) and value.ndim == ndim and value.numel() and (stage := _STAGE.search(key)):
            found.setdefault(int(stage[1]), value)
    return dict(sorted(found.items()))


def _stored_windows(tensors: Mapping[str, Tensor], config: object) -> dict[str, Any]:
    """Return the windows, those of pre-training and a size of images of the offsets that a checkpoint stores.

    A window is no larger than the map of its stage, so a smaller one gives the size of the images, as a mask does.
    Otherwise the size is the config's, or if its maps are too small, the smallest one whose maps are not.

    Args:
        tensors: the checkpoint, with the names of its library.
        config: the config of the closest variant.
    """
    c: Any = config
    tables = _stored(tensors, ".attn.relative_coords_table", 4) or _stored(tensors, ".relative_coords_table", 4)
    if not tables:
        return {}
    windows = [(table.shape[1] + 1) // 2 for table in tables.values()]
    window, trained = max(windows), [_pretrained(table) for table in tables.values()]
    patch = next((value.shape[-1] for key, value in tensors.items() if key.endswith(_PATCHES)), c.patch_size)
    known = any(trained) and trained != windows
    found: dict[str, Any] = {"window_size": window, "pretrained_windows": tuple(trained) if known else ()}
    cells = _cells(tensors, windows[0]) or next((w << s for s, w in enumerate(windows) if w < window), None)
    fits = [min(window, -(-c.preprocess.size // (patch << stage))) for stage in range(len(windows))] == windows
    if cells is not None and -(-c.preprocess.size // patch) != cells:
        found["image_size"] = cells * patch
    elif not fits:
        found["image_size"] = (window << (len(windows) - 1)) * patch
    return found


_PATCHES = ("patch_embed.proj.weight", "features.0.0.weight", "patch_embeddings.projection.weight")


def _cells(tensors: Mapping[str, Tensor], window: int) -> int | None:
    """Return the side of the first map, in cells, from the mask of its shifted windows."""
    mask = _stored(tensors, ".attn_mask", 3)
    first = next(iter(mask.items()), None)
    return round(len(first[1]) ** 0.5) * window if first is not None and first[0] == 0 else None


def _pretrained(table: Tensor) -> int:
    """Return the side of the window of pre-training by which the largest offset was divided."""
    side = (table.shape[1] + 1) // 2
    level = float(table.abs().max())
    if side == 1 or not 0 < level < 10:  # one cell has no offsets; other levels are damage
        return 0
    return round(8 * (side - 1) / (2 ** (3 * level) - 1)) + 1


_FAMILY = ("swin_v2",)
_SCALE = "layers.0.blocks.0.attn.logit_scale"
FORMATS = (
    Format(
        "timm",
        _FAMILY,
        _TIMM,
        (_SCALE, "layers.1.downsample.reduction.weight", "layers.1.blocks.0.norm1.weight"),
        answers={"edge": "timm"},
        stored_fields=_stored_windows,
    ),
    Format(
        "official", _FAMILY, _OFFICIAL, (_SCALE, "layers.0.downsample.reduction.weight"), stored_fields=_stored_windows
    ),
    Format(
        "torchvision",
        _FAMILY,
        _TORCHVISION,
        ("features.0.0.weight", "features.1.0.attn.logit_scale"),
        stored_fields=_stored_windows,
    ),
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        ("(swinv2.)encoder.layers.0.blocks.0.attention.self.logit_scale",),
        describe=_config,
        states=_states,
        stored_fields=_stored_windows,
    ),
)
