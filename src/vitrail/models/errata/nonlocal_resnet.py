"""Errata of non-local networks."""

from vitrail.models.errata.erratum import Erratum

_TEST = "tests/parts/test_non_local.py::test_mixing_against_a_loop"
ERRATA = (
    Erratum(
        "nonlocal_resnet",
        "Max pooling of keys and values",
        ("paper, section 3.3: after phi and g", "authors' code: of the map, before phi and g"),
        "the authors' code",
        _TEST,
    ),
    Erratum(
        "nonlocal_resnet",
        "Scale of the embedded Gaussian",
        ("paper, equation 4: none", "authors' code: 1 / sqrt(d)"),
        "the authors' code",
        _TEST,
    ),
)
