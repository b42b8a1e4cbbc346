"""Errata of PVT v2."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "pvt_v2",
        "Epsilon of the norms after patches and spatial reductions",
        (
            "official code, timm: 1e-5 (PyTorch's default), and 1e-6 in blocks and at the end of stages",
            "Hugging Face: 1e-6 in all norms",
        ),
        "the official code and timm; `reduction_eps=1e-6` gives Hugging Face's, with which its files are read",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
    Erratum(
        "pvt_v2",
        "ReLU in the feed-forward of the linear variant",
        (
            "paper, figure 2: linear layer, depthwise convolution, GELU, linear layer",
            "official code, timm, Hugging Face: in the linear variant a ReLU before the depthwise convolution",
        ),
        "the official code",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
)
