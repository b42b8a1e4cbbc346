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
)
