"""Published figures of lstm; parameters with a vocabulary of 16,000 words of 300 channels."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "lstm_sst": text(5_116_178, 40_255_824, "sentiment", "SST-2 84.9 with GloVe vectors (Tai et al., table 2)"),
    "bilstm_sst": text(5_432_354, 80_511_648, "sentiment", "SST-2 87.5 with GloVe vectors (Tai et al., table 2)"),
}
