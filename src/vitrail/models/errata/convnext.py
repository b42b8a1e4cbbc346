"""Errata of ConvNeXt."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "convnext",
        "eps of the last LayerNorm",
        ("official code, timm, torchvision: 1e-6", "Hugging Face's default config: 1e-12"),
        "the official code; written folders state 1e-6",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
)
