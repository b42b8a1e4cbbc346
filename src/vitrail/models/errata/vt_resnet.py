"""Errata of VT-ResNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "vt_resnet",
        "Widths of the projections",
        (
            "paper, section 3: K, Q in C x C / 2 and F in C x C, which makes 23.2 M and 3.72 G of VT-ResNet-50",
            "paper, table of results: 21.4 M and 3.41 G",
        ),
        "the formulas of section 3, since the table cannot be derived from them and no code was released",
        "tests/models/test_published.py::test_size",
    ),
    Erratum(
        "vt_resnet",
        "Scale of the scores",
        ("paper, equations 3 and 5: none", "Attention Is All You Need: 1 / sqrt(d)"),
        "1 / sqrt(d) in the Transformer and the projector, none in the tokenizers",
        "tests/parts/test_visual_tokens.py::test_block_against_a_loop",
    ),
)
