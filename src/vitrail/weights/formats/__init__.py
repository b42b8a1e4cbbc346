"""Every format that is read and written: one file an architecture, one table a library."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from vitrail.errors import VitrailError, unknown
from vitrail.weights.formats import (
    albert,
    bert,
    bit,
    botnet,
    cait,
    cct,
    convbert,
    convit,
    convnext,
    crossvit,
    deepvit,
    deit,
    dinat_s,
    dinov2,
    eva02,
    gpt,
    halonet,
    igpt,
    metaformer,
    mixer,
    nat,
    nest,
    perceiver,
    pixel_gpt,
    poolformer,
    pvt,
    pvt_v2,
    rcnn,
    reformer,
    resnet,
    segformer,
    siglip,
    swin,
    swin2sr,
    swin_v2,
    swinir,
    tnt,
    transformer,
    twins,
    upernet,
    vit,
    vit_hybrid,
    xcit,
)
from vitrail.weights.keymap import Format, Rule

VITRAIL = Format("vitrail", (), (Rule("{*}", "{*}"),), ("backbone.stages.0.{*}", "backbone.embedding.{*}"))

FORMATS: tuple[Format, ...] = (
    VITRAIL,
    *vit.FORMATS,
    *vit_hybrid.FORMATS,
    *deit.FORMATS,
    *swin.FORMATS,
    *swin_v2.FORMATS,
    *nest.FORMATS,
    *pvt.FORMATS,
    *pvt_v2.FORMATS,
    *twins.FORMATS,
    *nat.FORMATS,
    *dinat_s.FORMATS,
    *poolformer.FORMATS,
    *metaformer.FORMATS,
    *convnext.FORMATS,
    *igpt.FORMATS,
    *botnet.FORMATS,
    *halonet.FORMATS,
    *resnet.FORMATS,
    *rcnn.FORMATS,
    *perceiver.FORMATS,
    *mixer.FORMATS,
    *cct.FORMATS,
    *bit.FORMATS,
    *tnt.FORMATS,
    *deepvit.FORMATS,
    *cait.FORMATS,
    *convit.FORMATS,
    *xcit.FORMATS,
    *dinov2.FORMATS,
    *siglip.FORMATS,
    *eva02.FORMATS,
    *crossvit.FORMATS,
    *transformer.FORMATS,
    *bert.FORMATS,
    *albert.FORMATS,
    *convbert.FORMATS,
    *gpt.FORMATS,
    *pixel_gpt.FORMATS,
    *reformer.FORMATS,
    *swin2sr.FORMATS,
    *swinir.FORMATS,
    *upernet.FORMATS,
    *segformer.FORMATS,
)


def write_as(name: str, family: str, ours: Mapping[str, Tensor], config: object) -> dict[str, Tensor]:
    """Return a model's tensors under the names of a library; for the arguments and errors see `written`."""
    return written(name, family, ours, config)[1]


def written(name: str, family: str, ours: Mapping[str, Tensor], config: Any) -> tuple[Format, dict[str, Tensor]]:
    """Find the format of a library that takes a model whole, and return it with the tensors under its names.

    Args:
        name: the library.
        family: the architecture of ours.
        ours: the tensors of the model.
        config: the model's config.

    Raises:
        VitrailError: nobody has a library of that name, or it does not have that architecture.
    """
    if name == "vitrail":
        return VITRAIL, dict(ours)
    writable = [one for one in FORMATS if one.writes]
    names = {library for one in writable for library in one.libraries}
    if name not in names:
        raise unknown("format", name, names)
    ours = {before_pooling(key): value for key, value in ours.items()}
    mapped = [(one, one.write(ours, config)) for one in writable if name in one.libraries and family in one.families]
    complete = [(one, their) for one, their in mapped if not their.unexpected and not their.incomplete]
    if getattr(config, "distilled", False):  # a ViT's format would write both tokens as one class token
        complete = [pair for pair in complete if _keeps_tokens(pair[1].tensors, config.distilled_head)]
    if not complete:
        having = sorted({each for one in writable if family in one.families for each in one.libraries} - {name})
        raise VitrailError(f"{name} has no such {family}. Other formats for it: {', '.join([*having, 'vitrail'])}.")
    _check_epsilon(complete[0][0], config)
    return complete[0][0], complete[0][1].tensors


def _keeps_tokens(tensors: Mapping[str, Tensor], two_heads: bool) -> bool:
    """Return whether tensors of a distilled model have both tokens, and as many heads as the model."""
    return any("dist" in key for key in tensors) and ("classifier.weight" in tensors) != two_heads


def _check_epsilon(form: Format, config: Any) -> None:
    """Refuse a model whose norms have another epsilon than those of a library that states none."""
    for field in fields(config) if is_dataclass(config) and form.describe is None else ():
        value = getattr(config, field.name)
        if field.name in ("norm_eps", "last_norm_eps") and value != field.default:
            raise VitrailError(
                f"{form.name} has {field.name}={field.default:g} for this architecture, and this model {value:g}: its\n"
                f"logits would differ there. Take that epsilon with --set {field.name}={field.default:g}, or write for "
                "huggingface."
            )


def before_pooling(key: str) -> str:
    """Name the last norm as the formats do, wherever the model has it."""
    return key.replace("head.pool.norm.", "backbone.norm.")
