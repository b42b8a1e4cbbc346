"""Errata of Set Transformer."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "set_transformer",
        "Divisor of the attention scores",
        ("paper: the root of a head's channels (equation 1)", "official code: the root of all channels"),
        "the code, which its results are from",
        "tests/models/test_point_models.py::test_blocks_of_sets_are_the_loops_of_the_paper",
    ),
    Erratum(
        "set_transformer",
        "Residual of a multi-head attention block, and the feed-forward layer before PMA",
        (
            "paper: x + attention, and PMA(rFF(x)) (equations 6 and 11)",
            "official code: W_q x + attention, and PMA(x)",
        ),
        "the code",
        "tests/models/test_point_models.py::test_blocks_of_sets_are_the_loops_of_the_paper",
    ),
)
