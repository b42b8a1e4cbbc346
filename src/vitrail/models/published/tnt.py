"""Published figures of tnt."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "tnt_s_legacy_patch16_224": Published(224, 23_755_336, 5_216_875_008, 81.51, "in1k"),
    "tnt_s_patch16_224": Published(224, 23_768_584, 5_216_875_008, 81.51, "in1k", "paper 81.5"),
    "tnt_b_patch16_224": Published(224, 65_428_680, 14_049_082_880, 82.86, "in1k", "paper 82.9"),
}
