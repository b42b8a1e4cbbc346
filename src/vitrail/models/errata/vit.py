"""Errata of ViT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "vit",
        "How positions reach the tokens",
        (
            '"Attention Is All You Need", section 3.5, and ViT, equation 1: added to the embeddings',
            "study notes that circulate: sine and cosine positions are concatenated",
        ),
        "the papers: the width stays C",
        "tests/models/test_errata.py::test_positions_are_added",
    ),
)
