"""Errata of CCT and CVT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "cct",
        "Place of the second norm of a block",
        (
            "paper, figure 2: before the MLP, inside its residual branch",
            "official code: on the residual stream, after the sum; the MLP branch has no norm",
        ),
        "the official code, which made the weights",
        "tests/models/test_cct.py::test_against_a_loop_in_the_authors_names",
    ),
    Erratum(
        "cct",
        "Parameters of CCT-6/3x1",
        (
            "official table: 3.168 M, without its 65,536 positions",
            "official table, CCT-7/3x1: 3.760 M, with them",
        ),
        "with learned positions, the default of the official code: 3,233,803",
        "tests/models/test_cct.py::test_published_parameters",
    ),
)
