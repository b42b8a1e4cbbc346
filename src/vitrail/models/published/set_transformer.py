"""Published figures of set_transformer, counted at 1,024 points."""

from vitrail.models.published.figures import points

PUBLISHED = {
    "set_transformer_modelnet40": points(1_140_264, 514_729_984, "sizes of the official code"),
}
