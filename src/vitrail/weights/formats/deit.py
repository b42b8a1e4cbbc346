"""DeiT with a distillation token: timm, which keeps the authors' names, and Hugging Face.

Both keep the class token and the distillation token apart; we keep one table of prefix tokens, class token first.
"""

from typing import Any

from vitrail.weights.formats.vit import (
    PATCHES,
    POSITION,
    TOKENS,
    huggingface_blocks,
    timm_blocks,
    transformers_blocks,
    transformers_config,
    transformers_states,
)
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP, Concat

_TWO_TOKENS = Concat(1, 2)

_TIMM = (
    Rule(("cls_token", "dist_token"), TOKENS, _TWO_TOKENS),
    Rule("pos_embed", POSITION),
    Rule("patch_embed.proj.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    *timm_blocks(),
    Rule("{head|head_dist}.{weight|bias}", "head.{linear|distillation}.{weight|bias}"),
)

_HF_ENDS = (
    Rule(("(deit.)embeddings.cls_token", "(deit.)embeddings.distillation_token"), TOKENS, _TWO_TOKENS),
    Rule("(deit.)embeddings.position_embeddings", POSITION),
    Rule("(deit.)embeddings.patch_embeddings.projection.{weight|bias}", PATCHES + ".proj.{weight|bias}"),
    Rule("(deit.)pooler.dense.{weight|bias}", (), DROP),
    Rule(
        "{cls_classifier|distillation_classifier}.{weight|bias}",
        "head.{linear|distillation}.{weight|bias}",
    ),
)
_HF_ONE_HEAD = (*_HF_ENDS[:-1], Rule("classifier.{weight|bias}", "head.linear.{weight|bias}"))
"""`DeiTForImageClassification`: the distillation token has no head."""


def _config(c: Any) -> dict[str, Any]:
    kind = "DeiTForImageClassificationWithTeacher" if c.distilled_head else "DeiTForImageClassification"
    return {"architectures": [kind], "model_type": "deit", **transformers_config(c)}


_FAMILY = ("deit",)
_TOKEN = "(deit.)embeddings.distillation_token"
_TIMM_MARKS = ("cls_token", "dist_token", "blocks.0.attn.qkv.weight")
_HF_MARKS = (_TOKEN, "(deit.)encoder.layer.0.attention.attention.query.weight")
_TRANSFORMERS_MARKS = (_TOKEN, "(deit.)layers.0.attention.q_proj.weight")


def _transformers(name: str, ends: tuple[Rule, ...], marks: tuple[str, ...], writes: bool) -> Format:
    blocks = huggingface_blocks("deit") if name == "huggingface" else transformers_blocks("deit")
    return Format(name, _FAMILY, ends + blocks, marks, writes, describe=_config, states=transformers_states)


FORMATS = (
    Format("timm", _FAMILY, _TIMM, _TIMM_MARKS),
    Format("official", _FAMILY, _TIMM, _TIMM_MARKS),
    _transformers("huggingface", _HF_ENDS, _HF_MARKS, writes=True),
    _transformers("huggingface", _HF_ONE_HEAD, (*_HF_MARKS, "classifier.weight"), writes=True),
    _transformers("transformers", _HF_ENDS, _TRANSFORMERS_MARKS, writes=False),
    _transformers("transformers", _HF_ONE_HEAD, (*_TRANSFORMERS_MARKS, "classifier.weight"), writes=False),
)
