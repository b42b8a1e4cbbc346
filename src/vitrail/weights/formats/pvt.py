"""PVT: Hugging Face and the authors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vitrail.errors import VitrailError
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import Concat

if TYPE_CHECKING:
    from vitrail.models.pvt import PVTConfig
    from vitrail.models.pvt_v2 import PVTv2Config


BLOCK = "backbone.stages.{s}.blocks.{i}"
MIXER = BLOCK + ".token_mixer"
REDUCTION = MIXER + ".reduction"
PATCHES = "backbone.embedding.patches"
ENTRY = "backbone.stages.{s+1}.entry"


def whole_ratios(ratios: tuple[float, ...]) -> list[int]:
    """Return MLP ratios as transformers' config holds them, which takes whole numbers only.

    Raises:
        VitrailError: a ratio is not whole.

    Example:
        >>> whole_ratios((4.0, 8.0))
        [4, 8]
    """
    if any(ratio != int(ratio) for ratio in ratios):
        raise VitrailError(
            f"transformers' PVT takes whole mlp_ratios, got {ratios}. Write for timm or official instead."
        )
    return [int(ratio) for ratio in ratios]


def official_blocks(theirs: str, ours: str = BLOCK) -> tuple[Rule, ...]:
    """Return the rules of blocks in the names of the authors of PVT and Twins."""
    mixer = ours + ".token_mixer"
    return (
        Rule(theirs + ".{norm1|norm2}.{weight|bias}", ours + ".{norm1|norm2}.{weight|bias}"),
        Rule(theirs + ".attn.{q|kv|proj}.{weight|bias}", mixer + ".{q|kv|proj}.{weight|bias}"),
        Rule(theirs + ".attn.{sr|norm}.{weight|bias}", mixer + ".reduction.{conv|norm}.{weight|bias}"),
        Rule(theirs + ".mlp.{fc1|fc2}.{weight|bias}", ours + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    )


def huggingface_blocks(theirs: str) -> tuple[Rule, ...]:
    """Return the rules of blocks in the names that both PVTs of transformers share."""
    keys_values = tuple(theirs + f"{part}.{{weight|bias}}" for part in (".key", ".value"))
    return (
        Rule(theirs + ".query.{weight|bias}", MIXER + ".q.{weight|bias}"),
        Rule(keys_values, MIXER + ".kv.{weight|bias}", Concat(0, 2)),
    )


_OFFICIAL = (
    *official_blocks("block{s+1}.{i}"),
    Rule("patch_embed1.{proj|norm}.{weight|bias}", PATCHES + ".{proj|norm}.{weight|bias}"),
    Rule("pos_embed1", "backbone.embedding.steps.0.table"),
    Rule("patch_embed{s+2}.{proj|norm}.{weight|bias}", ENTRY + ".0.patches.{proj|norm}.{weight|bias}"),
    Rule("cls_token", "backbone.stages.3.entry.1.tokens"),
    Rule("pos_embed{s+2}", ENTRY + ".2.table"),
    Rule("norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
)

_HF = "(pvt.)encoder."
_HF_BLOCK = _HF + "block.{s}.{i}"
_HF_ATTENTION = _HF_BLOCK + ".attention"
_HF_FIRST, _HF_LATER = _HF + "patch_embeddings.0", _HF + "patch_embeddings.{s+1}"
_PROJ_NORM = ".{projection|layer_norm}.{weight|bias}"
_HUGGINGFACE = (
    *huggingface_blocks(_HF_ATTENTION + ".self"),
    Rule(_HF_BLOCK + ".{layer_norm_1|layer_norm_2}.{weight|bias}", BLOCK + ".{norm1|norm2}.{weight|bias}"),
    Rule(
        _HF_ATTENTION + ".self.{sequence_reduction|layer_norm}.{weight|bias}", REDUCTION + ".{conv|norm}.{weight|bias}"
    ),
    Rule(_HF_ATTENTION + ".output.dense.{weight|bias}", MIXER + ".proj.{weight|bias}"),
    Rule(_HF_BLOCK + ".mlp.{dense1|dense2}.{weight|bias}", BLOCK + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(_HF_FIRST + _PROJ_NORM, PATCHES + ".{proj|norm}.{weight|bias}"),
    Rule(_HF_FIRST + ".position_embeddings", "backbone.embedding.steps.0.table"),
    Rule(_HF_LATER + _PROJ_NORM, ENTRY + ".0.patches.{proj|norm}.{weight|bias}"),
    Rule(_HF_LATER + ".cls_token", ENTRY + ".1.tokens"),
    Rule(_HF_LATER + ".position_embeddings", ENTRY + ".2.table"),
    Rule(_HF + "layer_norm.{weight|bias}", "backbone.norm.{weight|bias}"),
    Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"),
)


def check_eps(c: "PVTConfig | PVTv2Config") -> None:
    """Refuse a model whose reductions have another epsilon than those of transformers.

    Raises:
        VitrailError: if `reduction_eps` is not 1e-6.
    """
    if c.reduction_eps != 1e-6:
        raise VitrailError(
            f"transformers' PVT has epsilon 1e-6 in the norms after patches and reductions, and this one"
            f" {c.reduction_eps:g}:\nits logits would differ there by about 1e-5. Take that epsilon with --set"
            " reduction_eps=1e-6."
        )


def _config(c: Any) -> dict[str, Any]:
    check_eps(c)
    later = len(c.dims) - 1
    return {
        "architectures": ["PvtForImageClassification"],
        "model_type": "pvt",
        "image_size": c.preprocess.size,
        "num_channels": c.in_channels,
        "num_encoder_blocks": len(c.dims),
        "depths": list(c.depths),
        "sequence_reduction_ratios": list(c.sr_ratios),
        "hidden_sizes": list(c.dims),
        "patch_sizes": [4, *[2] * later],
        "strides": [4, *[2] * later],
        "num_attention_heads": list(c.num_heads),
        "mlp_ratios": whole_ratios(c.mlp_ratios),
        "num_labels": c.num_classes,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "drop_path_rate": c.drop_path,
    }


def states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the config that transformers' `config.json` states."""
    heads = said.get("num_attention_heads")
    return {
        **renamed(said, drop_path="drop_path_rate", image_size="image_size"),
        **({"num_heads": tuple(heads)} if isinstance(heads, list | tuple) else {}),
        "reduction_eps": float(said.get("layer_norm_eps", 1e-6)),
    }


_FAMILY = ("pvt",)
FORMATS = (
    Format("official", _FAMILY, _OFFICIAL, ("patch_embed1.proj.weight", "pos_embed1", "block1.0.attn.q.weight")),
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        (_HF_FIRST + ".position_embeddings", _HF + "block.0.0.attention.self.query.weight"),
        describe=_config,
        states=states,
        answers={"reduction_eps": 1e-6},
    ),
)
