"""HaloNet: timm's byoanet with halo attention. Its q and kv are 1 x 1 convolutions, ours linear layers."""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import PointwiseConv

_BN = "{weight|bias|running_mean|running_var|num_batches_tracked}"


def _unit(stage: int, layer: int, attending: bool) -> tuple[Rule, ...]:
    """Return the rules of one bottleneck."""
    theirs, ours = (
        f"stages.{stage}.{layer}.",
        f"backbone.stages.{stage}." + (f"blocks.{layer - 1}." if layer else "entry."),
    )
    shared = (
        Rule(theirs + "{conv1_1x1|conv3_1x1}.conv.weight", ours + "{conv1|conv3}.weight"),
        Rule(theirs + f"{{conv1_1x1|conv3_1x1}}.bn.{_BN}", ours + f"{{norm1|norm3}}.{_BN}"),
        Rule(theirs + "shortcut.conv.weight", ours + "proj.weight"),
        Rule(theirs + f"shortcut.bn.{_BN}", ours + f"proj_norm.{_BN}"),
    )
    if not attending:
        mixing = (
            Rule(theirs + "conv2_kxk.conv.weight", ours + "conv2.weight"),
            Rule(theirs + f"conv2_kxk.bn.{_BN}", ours + f"norm2.{_BN}"),
        )
    else:
        mixing = (
            Rule(theirs + "self_attn.{q|kv}.weight", ours + "token_mixer.{q|kv}.weight", PointwiseConv()),
            Rule(theirs + "self_attn.pos_embed.{height_rel|width_rel}", ours + "token_mixer.position.{rows|columns}"),
            Rule(theirs + f"post_attn.{_BN}", ours + f"norm2.{_BN}"),
        )
    return shared + mixing


def _timm(depths: tuple[int, ...], attention: tuple[tuple[int, ...], ...]) -> tuple[Rule, ...]:
    """Return the rules of a network; the norm after a convolution and after attention have different names."""
    units = [
        rule
        for stage, (depth, attending) in enumerate(zip(depths, attention, strict=True))
        for layer in range(depth)
        for rule in _unit(stage, layer, layer in attending)
    ]
    stem = "backbone.embedding.patches.conv.{0|1|2}."
    return (
        Rule("stem.{conv1|conv2|conv3}.conv.weight", stem + "0.weight"),
        Rule(f"stem.{{conv1|conv2|conv3}}.bn.{_BN}", stem + f"1.{_BN}"),
        *units,
        Rule("head.fc.{weight|bias}", "head.linear.{weight|bias}"),
    )


FORMATS = tuple(
    Format("timm", ("halonet",), rules, ("stem.conv1.conv.weight", "stages.3.1.self_attn.kv.weight"))
    for rules in (
        _timm((2, 2, 2, 2), ((), (), (1,), (0, 1))),
        _timm((3, 4, 6, 3), ((), (3,), (1, 3, 5), (1,))),
    )
)
