"""Published figures of retnet."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "retnet_1b3": text(1_311_234_048, 170_209_312_768, "language", "paper 1.3 B"),
    "retnet_2b7": text(2_645_818_880, 342_617_292_800, "language", "paper 2.7 B"),
    "retnet_6b7": text(6_649_229_312, 857_425_313_792, "language", "paper 6.7 B"),
}
