"""Errata of Twins."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "twins",
        "Multiply-adds of attention",
        (
            "paper, table 2: SVT 2.8, 8.3, 14.8 G and PCPVT 3.7, 6.4, 9.5 G, without the products of attention",
            "counted: 2.927, 8.563, 15.112 G and 3.809, 6.653, 9.808 G",
        ),
        "all products, as for every other architecture",
        "tests/models/test_published.py::test_cost",
    ),
    Erratum(
        "twins",
        "Maps that windows do not divide",
        (
            "official code: an error",
            "timm: zeros after the norm, which take part as keys; its masked form, a comment, masks all keys of a map"
            " without padding",
        ),
        "timm's zeros",
        "tests/weights/test_weights_twins_sizes.py::test_twins_at_other_sizes",
    ),
    Erratum(
        "twins",
        "Sizes that are no multiple of a patch",
        (
            "official code, timm: the rest of the image and of each map is dropped",
            "Swin's official code: the map is padded with zeros",
        ),
        "padding, as in all models here; equal at multiples of 32",
        "tests/models/test_architectures.py::test_any_size",
    ),
)
