"""Hybrid ViT with a ResNet stem: timm and the authors' JAX code.

Each stage of the ResNet is a stage of ours, the first unit being its entry, and the encoder is the stage after them. So
the number of ResNet stages (0, 3 or 4 in the published models) decides where the encoder's keys go: one format each.
"""

from vitrail.weights.formats.vit import jax_blocks, timm_blocks
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import FlatNorm, Kernel

STEM = "backbone.embedding.patches"
_CONVS, _NORMS = "{conv1|conv2|conv3}.weight", "{norm1|norm2|norm3}.{weight|bias}"


def _ends(stage: int, cls: str, position: str, projection: Rule, encoder: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules of the encoder and of the layers between it and the ResNet."""
    entry = f"backbone.stages.{stage}.entry"
    return (Rule(cls, entry + ".1.tokens"), Rule(position, entry + ".2.table"), projection, *encoder)


def _timm(stages: int) -> tuple[Rule, ...]:
    """Return timm's rules for a ResNet of so many stages."""
    root = "patch_embed.backbone.stem" if stages else "patch_embed.backbone"
    numbers = f"{{{'|'.join(map(str, range(stages)))}}}" if stages > 1 else "{s}"
    theirs, ours = f"patch_embed.backbone.stages.{numbers}.blocks.", f"backbone.stages.{numbers}."
    projection = f"backbone.stages.{stages}.entry.0.patches.proj.{{weight|bias}}"
    resnet = (
        Rule(theirs + "0." + _CONVS, ours + "entry." + _CONVS),
        Rule(theirs + "0." + _NORMS, ours + "entry." + _NORMS),
        Rule(theirs + "0.downsample.conv.weight", ours + "entry.proj.weight"),
        Rule(theirs + "0.downsample.norm.{weight|bias}", ours + "entry.proj_norm.{weight|bias}"),
        Rule(theirs + "{i+1}." + _CONVS, ours + "blocks.{i}." + _CONVS),
        Rule(theirs + "{i+1}." + _NORMS, ours + "blocks.{i}." + _NORMS),
    )
    return (
        Rule(root + ".conv.weight", STEM + ".conv.weight"),
        Rule(root + ".norm.{weight|bias}", STEM + ".norm.{weight|bias}"),
        *(resnet if stages else ()),
        *_ends(
            stages,
            "cls_token",
            "pos_embed",
            Rule("patch_embed.proj.{weight|bias}", projection),
            timm_blocks(f"backbone.stages.{stages}.blocks.{{i}}"),
        ),
        Rule("head.{weight|bias}", "head.linear.{weight|bias}"),
    )


def _jax(stages: int) -> tuple[Rule, ...]:
    """Return the authors' rules for a ResNet of so many stages."""
    ordinals = f"{{{'|'.join(str(s + 1) for s in range(stages))}}}" if stages > 1 else "{s+1}"
    numbers = f"{{{'|'.join(map(str, range(stages)))}}}" if stages > 1 else "{s}"
    theirs, ours = f"block{ordinals}/", f"backbone.stages.{numbers}."
    convs, norms = "{conv1|conv2|conv3}/kernel", "{gn1|gn2|gn3}/{scale|bias}"
    projection = f"backbone.stages.{stages}.entry.0.patches.proj.{{weight|bias}}"
    resnet = (
        Rule(theirs + "unit1/" + convs, ours + "entry." + _CONVS, Kernel()),
        Rule(theirs + "unit1/" + norms, ours + "entry." + _NORMS, FlatNorm()),
        Rule(theirs + "unit1/conv_proj/kernel", ours + "entry.proj.weight", Kernel()),
        Rule(theirs + "unit1/gn_proj/{scale|bias}", ours + "entry.proj_norm.{weight|bias}", FlatNorm()),
        Rule(theirs + "unit{i+2}/" + convs, ours + "blocks.{i}." + _CONVS, Kernel()),
        Rule(theirs + "unit{i+2}/" + norms, ours + "blocks.{i}." + _NORMS, FlatNorm()),
    )
    return (
        Rule("conv_root/kernel", STEM + ".conv.weight", Kernel()),
        Rule("gn_root/{scale|bias}", STEM + ".norm.{weight|bias}", FlatNorm()),
        *(resnet if stages else ()),
        *_ends(
            stages,
            "cls",
            "Transformer/posembed_input/pos_embedding",
            Rule("embedding/{kernel|bias}", projection, Kernel()),
            jax_blocks(f"backbone.stages.{stages}.blocks.{{i}}"),
        ),
    )


def _formats(stages: int) -> tuple[Format, Format]:
    """Return both libraries' formats for a ResNet of so many stages."""
    timm_marks, jax_marks = ("cls_token", "patch_embed.backbone.{*}conv.weight"), ("conv_root/kernel",)
    if stages:
        timm_marks += (f"patch_embed.backbone.stages.{stages - 1}.blocks.0.conv1.weight",)
        jax_marks += (f"block{stages}/unit1/conv1/kernel",)
    else:
        timm_marks = ("cls_token", "patch_embed.backbone.conv.weight")
    return (
        Format("timm", ("vit_hybrid",), _timm(stages), timm_marks),
        Format("official", ("vit_hybrid",), _jax(stages), jax_marks),
    )


FORMATS = tuple(one for stages in (0, 3, 4) for one in _formats(stages))
