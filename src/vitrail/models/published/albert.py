"""Published figures of albert: parameters as transformers counts `AlbertForPreTraining`."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "albert_base_v2": text(11_813_810, 11_690_903_040, "pretrain", "12 M (paper); MNLI 84.6 (official)"),
    "albert_large_v2": text(17_847_474, 39_986_137_088, "pretrain", "18 M (paper); MNLI 83.5 (official)"),
    "albert_xlarge_v2": text(59_021_490, 156_792_262_656, "pretrain", "60 M (paper); MNLI 87.9 (official)"),
    "albert_xxlarge_v2": text(223_158_450, 311_490_781_184, "pretrain", "235 M (paper); MNLI 90.6 (official)"),
}
