"""Figures of text_decoder, whose sizes are ours; parameters with a vocabulary of 256 tokens."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "text_decoder_tiny": text(826_112, 121_634_816, "language"),
    "text_decoder_small": text(2_718_720, 383_778_816, "language"),
    "text_decoder_base": text(10_745_856, 1_447_034_880, "language"),
}
