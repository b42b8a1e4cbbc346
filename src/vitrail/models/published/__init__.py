"""Published figures of every variant, one file a family, in the order of the catalogue.

A list of names reads only these files and imports no architecture. The tests recount parameters and multiply-adds of
every variant.
"""

from vitrail.models.published import (
    albert,
    bert,
    bit,
    botnet,
    cait,
    cct,
    convbert,
    convit,
    convnext,
    cpvt,
    crossvit,
    deepvit,
    deit,
    dinat,
    dinat_s,
    dinov2,
    gpt2,
    halonet,
    igpt,
    lstm,
    metaformer,
    mixer,
    nat,
    nest,
    perceiver,
    poolformer,
    pvt,
    pvt_v2,
    resnet,
    sasa,
    siglip,
    swin,
    swin_v2,
    swinir,
    text_encoder,
    tnt,
    transformer,
    twins,
    vit,
    vit_hybrid,
    vmoe,
    xcit,
)
from vitrail.models.published.figures import Published

_FAMILIES = (
    vit,
    vit_hybrid,
    deit,
    swin,
    swin_v2,
    nest,
    pvt,
    pvt_v2,
    twins,
    nat,
    dinat,
    dinat_s,
    poolformer,
    metaformer,
    convnext,
    igpt,
    vmoe,
    resnet,
    botnet,
    halonet,
    sasa,
    perceiver,
    mixer,
    cct,
    bit,
    tnt,
    cpvt,
    deepvit,
    cait,
    convit,
    xcit,
    dinov2,
    siglip,
    crossvit,
    transformer,
    bert,
    albert,
    convbert,
    gpt2,
    lstm,
    text_encoder,
    swinir,
)

PUBLISHED: dict[str, Published] = {
    name: figures._replace(family=module.__name__.rpartition(".")[2])
    for module in _FAMILIES
    for name, figures in module.PUBLISHED.items()
}

__all__ = ["PUBLISHED", "Published"]
