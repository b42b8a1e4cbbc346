"""Errata of SigLIP."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "siglip",
        "GELU of the image towers",
        (
            "transformers' default: the tanh approximation",
            "timm: the exact GELU in towers up to 384 pixels with patches of 14 or 16, tanh in L/16 at 512",
        ),
        "timm, whose names the variants have; `gelu=tanh` gives the other",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
)
