"""Errata of DeepViT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "deepvit",
        "Mixing of heads and its norm in re-attention",
        (
            "paper, equation 3: a matrix Theta over heads, then Norm",
            "official code: a 1 x 1 convolution with bias, then BatchNorm over heads",
            "vit-pytorch: a random matrix without bias, then LayerNorm over heads",
        ),
        "the official code",
        "tests/parts/test_head_mixing.py::test_head_by_head_with_gradients",
    ),
)
