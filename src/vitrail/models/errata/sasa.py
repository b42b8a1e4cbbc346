"""Errata of stand-alone self-attention."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
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
            "paper, section 3.3: value matrices mixed by a softmax over place embeddings, alike in all heads",
            "leaderj1001/Stand-Alone-Self-Attention: a softmax over keys multiplies the scores, one table a pixel of"
            " the image",
        ),
        "the paper; 4 heads, 4 matrices and embeddings as wide as a head are ours, as its parameters, rounded to 0.1 M,"
        " do not tell them",
        "tests/parts/test_halo_attention.py::test_spatially_aware_attention_against_a_loop",
    ),
)
