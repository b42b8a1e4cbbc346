"""Errata of RetNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "retnet",
        "Norm of the heads",
        ("paper, equation 8: GroupNorm over the heads", "torchscale: root mean square of each head, without weights"),
        "torchscale",
        "tests/parts/test_retention.py::test_every_form_equals_the_loop",
    ),
    Erratum(
        "retnet",
        "Epsilon of the norm of the heads",
        (
            "torchscale: 1e-6, under which the parallel and the recurrent form differ where outputs are small",
            "paper, section 2.1: the forms are equal",
        ),
        "1e-12, so that they agree",
        "tests/models/test_retnet.py::test_three_forms_of_the_language_model_agree",
    ),
)
