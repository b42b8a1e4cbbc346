"""Errata of HaloNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "halonet",
        "Keys off the map",
        ("paper: no statement", "timm: zeros, whose positions are scored, take part in the softmax"),
        "timm, whose weights are read",
        "tests/weights/test_weights_halonet.py::test_same_weights_same_logits",
    ),
)
