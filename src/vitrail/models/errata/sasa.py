"""Errata of stand-alone self-attention."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "sasa",
        "Projections of a head",
        (
            "paper, section 2.2: each head projects its own group of channels; ResNet-50 would have 14.7 M parameters",
            "its table 1: 18.0 M; its table 6: 16.7 M without keys: dense projections",
            "leaderj1001/Stand-Alone-Self-Attention, MerHS/SASA-pytorch: dense projections",
        ),
        "the table: dense. The authors' repository has a README alone",
        "tests/models/test_published.py::test_size",
    ),
    Erratum(
        "sasa",
        "Operations",
        (
            "paper, table 1: 4.5, 5.7 and 7.0 G for ResNet-26, 38 and 50, a multiplication and an addition being two",
            "its formula 3 with q^T r as a third product beside q^T k and the values: 4.50, 5.75 and 6.99 G",
        ),
        "row and column offsets are scored apart and added, which saves that product: 4.39, 5.60 and 6.81 G",
        "tests/models/test_published.py::test_cost",
    ),
    Erratum(
        "sasa",
        "Scale of the scores",
        (
            "paper, equations 2 and 3: none, softmax(q^T k + q^T r)",
            "HaloNet, the sequel by the same authors: 1 / sqrt(d) on q^T k",
        ),
        "the paper",
        "tests/parts/test_halo_attention.py::test_stand_alone_attention_against_a_loop",
    ),
    Erratum(
        "sasa",
        "Keys off the map",
        ("paper: no statement", "timm's halo attention: zeros take part in the softmax"),
        "zeros take part, as a convolution pads",
        "tests/parts/test_halo_attention.py::test_stand_alone_attention_against_a_loop",
    ),
    Erratum(
        "sasa",
        "Values of the attention stem",
        (
            "paper, section 3.2 and appendix A.1: value matrices mixed by a softmax over place embeddings, alike in all"
            " four heads",
            "leaderj1001/Stand-Alone-Self-Attention: a softmax over keys multiplies the scores, one table a pixel of"
            " the image",
        ),
        "the paper; it states neither the number of matrices, 4 here, nor the width of embeddings, that of a head here:"
        " its figures, rounded to 0.1, allow several",
        "tests/parts/test_halo_attention.py::test_spatially_aware_attention_against_a_loop",
    ),
)
