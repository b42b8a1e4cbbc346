"""BoTNet: timm's byoanet with bottleneck attention. Its qkv is a 1 x 1 convolution, ours a linear layer."""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import PointwiseConv

_BN = "{weight|bias|running_mean|running_var|num_batches_tracked}"


def _unit(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Return the rules of one bottleneck, of either kind."""
    return (
        Rule(theirs + "{conv1_1x1|conv2_kxk|conv3_1x1}.conv.weight", ours + "{conv1|conv2|conv3}.weight"),
        Rule(theirs + f"{{conv1_1x1|conv3_1x1}}.bn.{_BN}", ours + f"{{norm1|norm3}}.{_BN}"),
        Rule(theirs + "self_attn.qkv.weight", ours + "token_mixer.qkv.weight", PointwiseConv()),
        Rule(theirs + "self_attn.pos_embed.{height_rel|width_rel}", ours + "token_mixer.position.{rows|columns}"),
    )


def _norm2(theirs: str, ours: str, attending: bool) -> Rule:
    return Rule(theirs + ("post_attn" if attending else "conv2_kxk.bn") + f".{_BN}", ours + f"norm2.{_BN}")


_ENTRY, _BLOCK = (
    ("stages.{s}.0.", "backbone.stages.{s}.entry."),
    ("stages.{s}.{i+1}.", "backbone.stages.{s}.blocks.{i}."),
)
_TIMM = (
    Rule("stem.{conv1|conv2|conv3}.conv.weight", "backbone.embedding.patches.conv.{0|1|2}.0.weight"),
    Rule(f"stem.{{conv1|conv2|conv3}}.bn.{_BN}", f"backbone.embedding.patches.conv.{{0|1|2}}.1.{_BN}"),
    *_unit(*_ENTRY),
    *_unit(*_BLOCK),
    Rule(_ENTRY[0] + "shortcut.conv.weight", _ENTRY[1] + "proj.weight"),
    Rule(_ENTRY[0] + f"shortcut.bn.{_BN}", _ENTRY[1] + f"proj_norm.{_BN}"),
    # The norm after the 3 x 3 or the attention: in 26t the last two stages attend, but for the entry of the third.
    *(
        _norm2(theirs.replace("{s}", stage), ours.replace("{s}", stage), attending)
        for (theirs, ours), stage, attending in (
            (_ENTRY, "{0|1|2}", False),
            (_ENTRY, "3", True),
            (_BLOCK, "{0|1}", False),
            (_BLOCK, "{2|3}", True),
        )
    ),
    Rule("head.fc.{weight|bias}", "head.linear.{weight|bias}"),
)

FORMATS = (Format("timm", ("botnet",), _TIMM, ("stem.conv1.conv.weight", "stages.3.0.self_attn.pos_embed.height_rel")),)
