"""UperNet: Hugging Face (Swin, ConvNeXt), mmsegmentation (Swin), and the authors of Swin.

mmsegmentation merges patches in the order of `Unfold`; the authors of Swin keep their own. Hugging Face's Swin has a
last norm that the model does not use.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vitrail.errors import VitrailError
from vitrail.models import family_of, make_config
from vitrail.weights.formats import convnext, swin
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP

WB = "{weight|bias}"
STATE = "{weight|bias|running_mean|running_var|num_batches_tracked}"


def inside(rules: Iterable[Rule], prefix: str = "backbone.") -> tuple[Rule, ...]:
    """Return the rules of a classifier's backbone under a prefix, without its last norm and head."""
    kept = []
    for rule in rules:
        ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
        if any(one.startswith(("backbone.norm", "head.")) for one in ours):
            continue
        theirs = prefix + rule.theirs if isinstance(rule.theirs, str) else tuple(prefix + one for one in rule.theirs)
        kept.append(Rule(theirs, rule.ours, rule.operation))
    return tuple(kept)


def decoder(norm: str, classifier: str) -> tuple[Rule, ...]:
    """Return the rules of both heads; `norm` and `classifier` are the library's words."""
    main, ours = "decode_head", "head.main.decoder"
    pairs = (
        (f"{main}.psp_modules.{{i}}.1", f"{ours}.pooling.projections.{{i}}"),
        (f"{main}.bottleneck", f"{ours}.pooling.bottleneck"),
        (f"{main}.lateral_convs.{{i}}", f"{ours}.lateral.{{i}}"),
        (f"{main}.fpn_convs.{{i}}", f"{ours}.smooth.{{i}}"),
        (f"{main}.fpn_bottleneck", f"{ours}.fuse"),
        ("auxiliary_head.convs.{i}", "head.auxiliary.decoder.convs.{i}"),
    )
    return (
        *(Rule(f"{theirs}.conv.weight", f"{our}.conv.weight") for theirs, our in pairs),
        *(Rule(f"{theirs}.{norm}.{STATE}", f"{our}.norm.{STATE}") for theirs, our in pairs),
        Rule(f"{main}.{classifier}.{WB}", f"head.main.classifier.{WB}"),
        Rule(f"auxiliary_head.{classifier}.{WB}", f"head.auxiliary.classifier.{WB}"),
    )


_LEVEL = f"head.maps.norms.{{l}}.{WB}"
_HF = (Rule(f"backbone.hidden_states_norms.stage{{l+1}}.{WB}", _LEVEL), *decoder("batch_norm", "classifier"))
_UNUSED = Rule(f"backbone.(swin.)layernorm.{WB}", (), DROP)
_MM = (Rule(f"backbone.norm{{l}}.{WB}", _LEVEL), *decoder("bn", "conv_seg"))


def _config(c: Any) -> dict[str, Any]:
    kind = {"architectures": ["UperNetForSemanticSegmentation"], "model_type": "upernet"}
    b = make_config(c.backbone, **dict(c.backbone_config))
    if family_of(c.backbone) == "swin":
        if swin.depends_on_edge(b, c.preprocess.size, "shifted"):
            raise VitrailError(
                f"transformers' UperNet has edge=shifted, and this one edge={b.edge}; at {c.preprocess.size} pixels\n"
                "its weights would give other answers there. Use the folder of vitrail."
            )
        backbone = swin.huggingface_fields(replace(b, preprocess=c.preprocess))
    elif family_of(c.backbone) == "convnext":
        backbone = convnext.huggingface_fields(b)
        del backbone["layer_norm_eps"]  # of the last norm, which the decoder does not use
    else:  # transformers has other backbones, and their keys would not fit
        return kind
    stages = [f"stage{stage + 1}" for stage in range(len(b.depths))]
    return {
        **kind,
        "backbone_config": {**backbone, "architectures": None, "num_channels": c.in_channels, "out_features": stages},
        "hidden_size": c.channels,
        "pool_scales": list(c.pool_scales),
        "auxiliary_channels": c.auxiliary_channels,
    }


_FAMILY = ("upernet",)
_HF_MARKS = ("decode_head.classifier.weight", "backbone.hidden_states_norms.stage1.weight")
_MM_MARKS = ("decode_head.conv_seg.weight", "backbone.norm0.weight")
_TABLE = "relative_position_bias_table"

FORMATS = (
    Format(
        "huggingface",
        _FAMILY,
        (*inside(swin.HUGGINGFACE_RULES), _UNUSED, *_HF),
        (*_HF_MARKS, f"backbone.(swin.)encoder.layers.0.blocks.0.attention.self.{_TABLE}"),
        describe=_config,
    ),
    Format(
        "transformers",
        _FAMILY,
        (*inside(swin.TRANSFORMERS_RULES), _UNUSED, *_HF),
        (*_HF_MARKS, f"backbone.(swin.)encoder.layers.0.blocks.0.attention.relative_position_bias.{_TABLE}"),
        writes=False,
        describe=_config,
    ),
    Format(
        "huggingface",
        _FAMILY,
        (*inside(convnext.huggingface_rules("")), *_HF),
        (*_HF_MARKS, "backbone.encoder.stages.0.layers.0.layer_scale_parameter"),
        describe=_config,
    ),
    Format(
        "mmsegmentation",
        _FAMILY,
        (*inside(swin.MMPRETRAIN_RULES, ""), *_MM),
        (*_MM_MARKS, f"backbone.stages.0.blocks.0.attn.w_msa.{_TABLE}"),
    ),
    Format(
        "official",
        _FAMILY,
        (*inside(swin.OFFICIAL_RULES), *_MM),
        (*_MM_MARKS, f"backbone.layers.0.blocks.0.attn.{_TABLE}"),
    ),
)
