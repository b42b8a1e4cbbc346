"""Errata of Swin."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "swin",
        "Depths of Swin-B and Swin-L",
        ("paper, official code: 2, 2, 18, 2", "study notes that circulate: 2, 2, 6, 2, as in Swin-T"),
        "the paper",
        "tests/models/test_errata.py::test_depths_of_the_larger_swins",
    ),
    Erratum(
        "swin",
        "Size of the relative position table",
        (
            "paper, section 3.2: (2M - 1) x (2M - 1) entries a head, M the side of a window",
            "study notes that circulate: C^2 entries",
        ),
        "the paper: 169 rows for M = 7, whatever C is",
        "tests/models/test_errata.py::test_rows_of_the_relative_position_table",
    ),
    Erratum(
        "swin",
        "Shift of an axis that one window covers",
        (
            "torchvision, timm: that axis is not shifted, the other one is",
            "official classification code, Hugging Face's classifier: neither axis is shifted",
            "official segmentation code, mmsegmentation, the Swin in Hugging Face's UperNet: both axes are shifted",
        ),
        "torchvision in the classifier (`edge=official`), the segmentation code in the UperNets (`edge=shifted`)",
        "tests/weights/test_weights_upernet.py::test_windows_of_the_published_models_are_always_shifted",
    ),
)
