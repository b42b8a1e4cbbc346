"""Errata of the original Perceiver."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "perceiver_iterative",
        "Shared weights of the cross-attentions",
        (
            "paper, abstract of the method: weights are shared between cross-attentions",
            "paper, section 4.1: the first has its own, which alone gives the 44.9 M of its table",
        ),
        "the first has its own",
        "tests/models/test_perceiver_iterative.py::test_readings_and_transformers_in_turn",
    ),
)
