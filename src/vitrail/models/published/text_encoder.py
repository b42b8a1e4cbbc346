"""Figures of text_encoder, whose sizes are ours; parameters with a vocabulary of 16,000 words."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "text_encoder_tiny": text(2_313_474, 41_943_296, "sentiment"),
    "text_encoder_small": text(6_205_442, 301_990_400, "sentiment"),
}
