"""Errata of VT-ResNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "vt_resnet",
        "Widths of the projections",
        (
            "paper, section 3: K, Q in C x C / 2 and F in C x C. VT-ResNet-50 then has 8.54 M in the convolutions,"
            " 1.03 M in the head, 3 x 3.15 M in Transformers, 2 x 1.05 M in projectors and 2 x 1.05 M + 0.02 M in"
            " tokenizers: 23.2 M and 3.72 G; 21.2 M if all tokenizers are filters",
            "paper, table of results: 21.4 M and 3.41 G, of VT-ResNet-101 41.5 M and 7.13 G",
            "both tables of it together: 17 more bottlenecks of 1,117,184 make 19.0 M and 3.71 G; the paper has 20.1 M"
            " and 3.72 G, so its two lines are not of the same visual Transformers",
            "its cost: 3.28 G in the convolutions and 16 tokens x 11.8 M of the rest are 3.47 G without any product"
            " over cells, above 3.41 G",
        ),
        "the formulas of section 3, since no widths fit both columns of the table and no code was released",
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
