"""Published figures of transformer; multiply-adds of 128 source and 128 target tokens."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "transformer_base_wmt_en_de": text(63_082_496, 8_363_966_464, "translate", "65 M (paper, table 3); BLEU 27.3"),
    "transformer_big_wmt_en_de": text(214_245_376, 28_002_222_080, "translate", "213 M (paper, table 3); BLEU 28.4"),
    "transformer_tiny_multi30k": text(2_605_056, 381_943_808, "translate", "2.6 M (Wu et al.); BLEU 41.02"),
    "opus_mt_en_de": text(73_944_309, 9_746_841_600, "translate", "Helsinki-NLP/opus-mt-en-de"),
}
