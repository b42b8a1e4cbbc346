"""Errata of the MetaFormer baselines."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "metaformer",
        "First values of StarReLU",
        (
            "paper, section 3.3: s = 0.8944 and b = -0.4472, so that a normal input gives mean 0 and variance 1",
            "official code, timm: s = 1 and b = 0",
        ),
        "the code",
        "tests/parts/test_metaformer_mixers.py::test_star_relu_with_unit_scale_is_squared_relu",
    ),
    Erratum(
        "metaformer",
        "eps of the LayerNorm in the MLP head",
        ("official code: 1e-5", "timm: 1e-6"),
        "timm",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
    Erratum(
        "metaformer",
        "Accuracy of RandFormer",
        (
            "official repository, table: the figures of IdentityFormer, 80.4 for M48",
            "official repository, caption of figure 1: over 81",
        ),
        "neither: no accuracy is listed",
        "tests/models/test_errata.py::test_randformer_lists_no_accuracy",
    ),
)
