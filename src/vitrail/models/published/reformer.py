"""Published figures of reformer: parameters as transformers counts `ReformerModelWithLMHead`.

Checked: the released file of enwik8 has 597 MB, 149.2 million numbers of four bytes. Its card names no figure.
"""

from vitrail.models.published.figures import text

PUBLISHED = {
    "reformer_crime_and_punishment": text(2_748_224, 340_262_912, "language", "google/reformer-crime-and-punishment"),
    "reformer_enwik8": text(
        149_182_722,
        19_696_975_872,
        "language",
        "google/reformer-enwik8; paper, section 5: a model of 12 layers 1.19 bits a character, 1.05 trained longer",
    ),
}
