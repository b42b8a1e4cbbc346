"""Errata of BoTNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "botnet",
        "Scale of the relative position scores",
        ("authors' code: 1 / sqrt(d), as for the keys", "timm: 1"),
        "the authors for botnet50_s1, timm for botnet26t_256",
        "tests/weights/test_weights_botnet.py::test_same_weights_same_logits",
    ),
)
