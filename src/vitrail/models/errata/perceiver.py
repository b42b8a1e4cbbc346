"""Errata of Perceiver IO."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "perceiver",
        "Padding of the 7 x 7 convolution of the convolutional input",
        ("official code (TensorFlow's SAME): 2 before and 3 after", "Hugging Face: 3 on every side"),
        "Hugging Face, whose weights are read",
        "tests/weights/test_weights_perceiver.py::test_same_weights_same_logits",
    ),
)
