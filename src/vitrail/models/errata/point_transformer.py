"""Errata of Engel's Point Transformer."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "point_transformer",
        "Dependence on the order of points",
        (
            "paper: invariant, as the SortNets sort",
            "official code: the farthest points begin anywhere, and balls are read in the order of the file",
        ),
        "the paper: clouds are put in lexicographic order first, which fixes both",
        "tests/models/test_point_models.py::test_the_output_does_not_depend_on_the_order_of_points",
    ),
    Erratum(
        "point_transformer",
        "Weights of the SortNets",
        ("paper: M SortNets of their own (section III-B)", "popular reimplementation: one SortNet used M times"),
        "the paper and the official code",
        "tests/models/test_point_models.py::test_local_features_are_point_surroundings_and_score",
    ),
)
