"""Errata of iGPT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "igpt",
        "Mean of the norm's input",
        ("paper, section 3.2: layer norm", "official code, Hugging Face: root mean square, not centred, no bias"),
        "the code",
        "tests/weights/test_weights_igpt.py::test_same_weights_same_logits",
    ),
)
