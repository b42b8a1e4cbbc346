"""Published figures of reformer: parameters as transformers counts `ReformerModelWithLMHead`."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "reformer_crime_and_punishment": text(2_748_224, 340_262_912, "language", "google/reformer-crime-and-punishment"),
    "reformer_enwik8": text(
        149_182_722, 19_696_975_872, "language", "149 M (google/reformer-enwik8); 1.05 bits a character (paper)"
    ),
}
