"""Published figures of bert: parameters as transformers counts `BertForPreTraining` (MiniLM: without the pooler)."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "bert_tiny": text(4_433_468, 560_906_496, "pretrain", "4.4 M (google-research/bert)"),
    "bert_mini": text(11_267_900, 1_444_807_168, "pretrain", "11.3 M (google-research/bert)"),
    "bert_small": text(29_058_876, 3_711_828_992, "pretrain", "29.1 M (google-research/bert)"),
    "bert_medium": text(41_668_412, 5_389_550_592, "pretrain", "41.7 M (google-research/bert)"),
    "bert_base_uncased": text(110_106_428, 14_250_149_376, "pretrain", "110 M (paper); MNLI 84.6"),
    "bert_large_uncased": text(336_226_108, 43_595_859_968, "pretrain", "340 M (paper); MNLI 86.7"),
    "bert_base_cased": text(108_932_934, 14_100_137_472, "pretrain"),
    "bert_large_cased": text(334_661_958, 43_395_844_096, "pretrain"),
    "minilm_l12_h384_uncased": text(
        33_391_290, 4_387_995_648, "masked", "33 M with its word table (paper: 21 M without)"
    ),
    "all_minilm_l6_v2": text(22_565_376, 1_434_451_968, "vector", "22.7 M with the pooler, which vectors do not use"),
    "all_minilm_l12_v2": text(33_212_160, 2_868_903_936, "vector", "33.4 M with the pooler, which vectors do not use"),
}
