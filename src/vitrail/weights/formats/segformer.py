"""SegFormer: Hugging Face (files, and the names of current versions in memory), and the authors.

Hugging Face's classifier on its encoder, the Mix Transformer, is a PVT v2 here.
"""

from collections.abc import Mapping
from typing import Any

from vitrail.models import catalogue, family_of, make_config
from vitrail.weights.formats.pvt import (
    BLOCK,
    ENTRY,
    MIXER,
    PATCHES,
    REDUCTION,
    huggingface_blocks,
    official_blocks,
    whole_ratios,
)
from vitrail.weights.keymap import Format, Rule, renamed
from vitrail.weights.transforms import Concat

WB = "{weight|bias}"
STATE = "{weight|bias|running_mean|running_var|num_batches_tracked}"
CONV = f"{BLOCK}.channel_mixer.conv.{WB}"
EXIT = f"backbone.stages.{{s}}.exit.norm.{WB}"
FIRST_NORM, LATER_NORM = f"backbone.embedding.steps.0.norm.{WB}", f"{ENTRY}.1.norm.{WB}"
HEAD = "head.main.decoder"


def _patches(first: str, later: str, norm: str) -> tuple[Rule, ...]:
    """Return the rules of patch embeddings, before the first stage and before each later one."""
    return (
        Rule(f"{first}.proj.{WB}", f"{PATCHES}.proj.{WB}"),
        Rule(f"{first}.{norm}.{WB}", FIRST_NORM),
        Rule(f"{later}.proj.{WB}", f"{ENTRY}.0.reduction.{WB}"),
        Rule(f"{later}.{norm}.{WB}", LATER_NORM),
    )


def _decoder(projection: str, fuse: str, norm: str, classifier: str) -> tuple[Rule, ...]:
    """Return the rules of the decoder."""
    return (
        Rule(f"decode_head.{projection}.proj.{WB}", f"{HEAD}.projections.{{l}}.{WB}"),
        Rule(f"decode_head.{fuse}.weight", f"{HEAD}.fuse.conv.weight"),
        Rule(f"decode_head.{norm}.{STATE}", f"{HEAD}.fuse.norm.{STATE}"),
        Rule(f"decode_head.{classifier}.{WB}", f"head.main.classifier.{WB}"),
    )


_FILE = "segformer.encoder."
_FILE_BLOCK = _FILE + "block.{s}.{i}"
_FILE_ENCODER = (
    *huggingface_blocks(_FILE_BLOCK + ".attention.self"),
    *_patches(_FILE + "patch_embeddings.0", _FILE + "patch_embeddings.{s+1}", "layer_norm"),
    Rule(f"{_FILE_BLOCK}.{{layer_norm_1|layer_norm_2}}.{WB}", f"{BLOCK}.{{norm1|norm2}}.{WB}"),
    Rule(f"{_FILE_BLOCK}.attention.self.{{sr|layer_norm}}.{WB}", f"{REDUCTION}.{{conv|norm}}.{WB}"),
    Rule(f"{_FILE_BLOCK}.attention.output.dense.{WB}", f"{MIXER}.proj.{WB}"),
    Rule(f"{_FILE_BLOCK}.mlp.{{dense1|dense2}}.{WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{WB}"),
    Rule(f"{_FILE_BLOCK}.mlp.dwconv.dwconv.{WB}", CONV),
    Rule(f"{_FILE}layer_norm.{{s}}.{WB}", EXIT),
)
_HUGGINGFACE = (*_FILE_ENCODER, *_decoder("linear_c.{l}", "linear_fuse", "batch_norm", "classifier"))

_STAGE = "segformer.stages.{s}"
_NOW = _STAGE + ".blocks.{i}"
_REDUCED = _NOW + ".attention.sequence_reduction"
_NOW_ENCODER = (
    *_patches("segformer.stages.0.patch_embeddings", "segformer.stages.{s+1}.patch_embeddings", "layer_norm"),
    Rule(f"{_NOW}.attention.q_proj.{WB}", f"{MIXER}.q.{WB}"),
    Rule(tuple(f"{_NOW}.attention.{part}_proj.{WB}" for part in "kv"), f"{MIXER}.kv.{WB}", Concat(0, 2)),
    Rule(f"{_NOW}.attention.o_proj.{WB}", f"{MIXER}.proj.{WB}"),
    Rule(f"{_NOW}.{{layernorm_before|layernorm_after}}.{WB}", f"{BLOCK}.{{norm1|norm2}}.{WB}"),
    Rule(f"{_REDUCED}.{{sequence_reduction|layer_norm}}.{WB}", f"{REDUCTION}.{{conv|norm}}.{WB}"),
    Rule(f"{_NOW}.mlp.{{fc1|fc2}}.{WB}", f"{BLOCK}.channel_mixer.{{fc1|fc2}}.{WB}"),
    Rule(f"{_NOW}.mlp.dwconv.dwconv.{WB}", CONV),
    Rule(f"{_STAGE}.layer_norm.{WB}", EXIT),
)
_TRANSFORMERS = (*_NOW_ENCODER, *_decoder("linear_projections.{l}", "linear_fuse", "batch_norm", "classifier"))
_CLASSIFIER = Rule(f"classifier.{WB}", f"head.linear.{WB}")

_THEIRS = "backbone.block{s+1}.{i}"
_OFFICIAL = (
    *official_blocks(_THEIRS),
    *_patches("backbone.patch_embed1", "backbone.patch_embed{s+2}", "norm"),
    Rule(f"{_THEIRS}.mlp.dwconv.dwconv.{WB}", CONV),
    Rule(f"backbone.norm{{s+1}}.{WB}", EXIT),
    *_decoder("linear_c{l+1}", "linear_fuse.conv", "linear_fuse.bn", "linear_pred"),
)


def _encoder_fields(b: Any, in_channels: int) -> dict[str, Any]:
    """Return the fields of the encoder, a PVT v2."""
    later = len(b.dims) - 1
    return {
        "num_channels": in_channels,
        "num_encoder_blocks": len(b.dims),
        "depths": list(b.depths),
        "sr_ratios": list(b.sr_ratios),
        "hidden_sizes": list(b.dims),
        "patch_sizes": [7, *[3] * later],
        "strides": [4, *[2] * later],
        "num_attention_heads": list(b.num_heads),
        "mlp_ratios": whole_ratios(b.mlp_ratios),
        "hidden_act": "gelu",
        "reshape_last_stage": True,
        "drop_path_rate": b.drop_path,
    }


def _config(c: Any) -> dict[str, Any]:
    kind = {"architectures": ["SegformerForSemanticSegmentation"], "model_type": "segformer"}
    if family_of(c.backbone) != "pvt_v2":  # transformers has no such SegFormer, and its keys would not fit
        return kind
    b = make_config(c.backbone, **dict(c.backbone_config))
    return {**kind, **_encoder_fields(b, c.in_channels), "decoder_hidden_size": c.channels}


def _classifier_config(c: Any) -> dict[str, Any]:
    kind = {"architectures": ["SegformerForImageClassification"], "model_type": "segformer"}
    return {**kind, **_encoder_fields(c, c.in_channels)}


_ENCODER = {"dims": "hidden_sizes", "depths": "depths", "num_heads": "num_attention_heads", "sr_ratios": "sr_ratios"}


def _states(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backbone, if it is that of no variant."""
    lists = {ours: said.get(theirs) for ours, theirs in {**_ENCODER, "mlp_ratios": "mlp_ratios"}.items()}
    if not all(isinstance(value, list | tuple) for value in lists.values()):
        return {}
    numbers = {ours: tuple(value) for ours, value in lists.items() if value is not None}
    numbers["mlp_ratios"] = tuple(map(float, numbers["mlp_ratios"]))
    for name in (name for name, family in catalogue().items() if family == "segformer"):
        config = make_config(name)
        backbone = make_config(config.backbone, **dict(config.backbone_config))
        if all(getattr(backbone, ours, None) == value for ours, value in numbers.items()):
            return {}
    return {
        "backbone": "pvt_v2_b0",
        "backbone_config": (("drop_path", float(said.get("drop_path_rate", 0.1))), *sorted(numbers.items())),
    }


def _classifier_states(said: Mapping[str, Any]) -> dict[str, Any]:
    heads = said.get("num_attention_heads")
    known = {"num_heads": tuple(heads)} if isinstance(heads, list | tuple) else {}
    return {**renamed(said, drop_path="drop_path_rate"), **known}


_FAMILY = ("segformer",)
_FILE_MARK = "segformer.encoder.block.0.0.layer_norm_1.weight"
_NOW_MARK = "segformer.stages.0.blocks.0.layernorm_before.weight"


def _classifier(name: str, encoder: tuple[Rule, ...], mark: str) -> Format:
    """Return the format of a classifier, or of an encoder alone."""
    return Format(
        name,
        ("pvt_v2",),
        (*encoder, _CLASSIFIER),
        (mark,),
        writes=False,
        describe=_classifier_config,
        states=_classifier_states,
    )


FORMATS = (
    Format(
        "huggingface",
        _FAMILY,
        _HUGGINGFACE,
        (_FILE_MARK, "decode_head.{*}"),
        describe=_config,
        states=_states,
    ),
    Format(
        "transformers",
        _FAMILY,
        _TRANSFORMERS,
        (_NOW_MARK, "decode_head.{*}"),
        writes=False,
        describe=_config,
        states=_states,
    ),
    _classifier("huggingface", _FILE_ENCODER, _FILE_MARK),
    _classifier("transformers", _NOW_ENCODER, _NOW_MARK),
    Format("official", _FAMILY, _OFFICIAL, ("backbone.block1.0.attn.kv.weight", "decode_head.linear_pred.weight")),
)
