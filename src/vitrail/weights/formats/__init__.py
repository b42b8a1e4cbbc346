"""Registry of checkpoint formats: a module for each architecture, with a key map for each library."""

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
    """Return the state dict of a model with the keys of a library; arguments and errors are those of `written`."""
    return written(name, family, ours, config)[1]


def written(name: str, family: str, ours: Mapping[str, Tensor], config: Any) -> tuple[Format, dict[str, Tensor]]:
    """Select the format of a library that maps every tensor of a model, and return it with the mapped state dict.

    Args:
        name: name of the library.
        family: our architecture.
        ours: state dict of the model.
        config: config of the model.

    Raises:
        VitrailError: the library is unknown, or has no such architecture.
    """
    if name == "vitrail":
        return VITRAIL, dict(ours)
    writable = [form for form in FORMATS if form.writes]
    libraries = {library for form in writable for library in form.libraries}
    if name not in libraries:
        raise unknown("format", name, libraries)
    ours = {before_pooling(key): value for key, value in ours.items()}
    candidates = [form for form in writable if name in form.libraries and family in form.families]
    mapped = [(form, form.write(ours, config)) for form in candidates]
    complete = [(form, state) for form, state in mapped if not state.unexpected and not state.incomplete]
    if getattr(config, "distilled", False):  # a ViT's format would write both tokens as one class token
        complete = [pair for pair in complete if _keeps_tokens(pair[1].tensors, config.distilled_head)]
    if not complete:
        others = sorted({each for form in writable if family in form.families for each in form.libraries} - {name})
        raise VitrailError(f"{name} has no such {family}. Other formats for it: {', '.join([*others, 'vitrail'])}.")
    form, state = complete[0]
    _check_epsilon(form, config)
    return form, state.tensors


def _keeps_tokens(tensors: Mapping[str, Tensor], two_heads: bool) -> bool:
    """Return whether a mapped state dict keeps class and distillation token, and the number of heads."""
    return any("dist" in key for key in tensors) and ("classifier.weight" in tensors) != two_heads


def _check_epsilon(form: Format, config: Any) -> None:
    """Raise an error if the norms have another epsilon than the library, whose format does not store it."""
    for field in fields(config) if is_dataclass(config) and form.describe is None else ():
        value = getattr(config, field.name)
        if field.name in ("norm_eps", "last_norm_eps") and value != field.default:
            raise VitrailError(
                f"{form.name} has {field.name}={field.default:g} for this architecture, and this model {value:g}: its\n"
                f"logits would differ there. Take that epsilon with --set {field.name}={field.default:g}, or write for "
                "huggingface."
            )


def before_pooling(key: str) -> str:
    """Rename the norm of a pooling head to `backbone.norm`, the final norm in the key maps."""
    return key.replace("head.pool.norm.", "backbone.norm.")
