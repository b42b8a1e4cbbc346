"""CrossViT: timm, with one patch embedding or three convolutions a scale."""

from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import Concat

_EMBEDDING, _BLOCK = "backbone.embedding.branches.{b}", "backbone.stages.0.blocks.{i}"
_THEIRS, _OURS = "blocks.{i}.blocks.{b}.{j}", _BLOCK + ".branches.{b}.{j}"
_FUSION, _MIXER = "blocks.{i}.fusion.{b}", _BLOCK + ".fusions.{b}.token_mixer"

_TIMM = (
    Rule("cls_token_{b}", _EMBEDDING + ".steps.0.tokens"),
    Rule("pos_embed_{b}", _EMBEDDING + ".steps.1.table"),
    Rule("patch_embed.{b}.proj.{weight|bias}", _EMBEDDING + ".patches.proj.{weight|bias}"),
    Rule("patch_embed.{b}.proj.{2j}.{weight|bias}", _EMBEDDING + ".patches.convs.{j}.{weight|bias}"),
    Rule(_THEIRS + ".{norm1|norm2}.{weight|bias}", _OURS + ".{norm1|norm2}.{weight|bias}"),
    Rule(_THEIRS + ".attn.{qkv|proj}.{weight|bias}", _OURS + ".token_mixer.{qkv|proj}.{weight|bias}"),
    Rule(_THEIRS + ".mlp.{fc1|fc2}.{weight|bias}", _OURS + ".channel_mixer.{fc1|fc2}.{weight|bias}"),
    Rule(
        "blocks.{i}.{projs|revert_projs}.{b}.{0|2}.{weight|bias}",
        _BLOCK + ".fusions.{b}.{project|revert}.{0|2}.{weight|bias}",
    ),
    Rule(_FUSION + ".norm1.{weight|bias}", _BLOCK + ".fusions.{b}.norm.{weight|bias}"),
    Rule(_FUSION + ".attn.wq.{weight|bias}", _MIXER + ".q.{weight|bias}"),
    Rule(
        (_FUSION + ".attn.wk.{weight|bias}", _FUSION + ".attn.wv.{weight|bias}"),
        _MIXER + ".kv.{weight|bias}",
        Concat(0, 2),
    ),
    Rule(_FUSION + ".attn.proj.{weight|bias}", _MIXER + ".proj.{weight|bias}"),
    Rule("norm.{0|1}.{weight|bias}", "backbone.norm.{fine|coarse}.{weight|bias}"),
    Rule("head.{0|1}.{weight|bias}", "head.{linear|coarse}.{weight|bias}"),
)

FORMATS = (Format("timm", ("crossvit",), _TIMM, ("cls_token_1", "blocks.0.fusion.0.attn.wq.weight")),)
