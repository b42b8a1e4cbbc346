"""Errata of ResNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "resnet",
        "Convolution that has the stride of a stage",
        ("paper, authors' code: the first 1 x 1", "torchvision, timm, Hugging Face: the 3 x 3 (v1.5)"),
        "torchvision",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
)
