"""Errata of XCiT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "xcit",
        "Patches in class attention",
        (
            "paper, section 3.4: class attention as in CaiT, where patches stay as they are",
            "official code and timm: patches are scaled, normalised and doubled in each of the two layers",
        ),
        "the official code, with which the released weights were trained",
        "tests/parts/test_xcit_parts.py::test_class_blocks_scale_and_double_the_cells",
    ),
    Erratum(
        "xcit",
        "Order of the local patch interaction",
        (
            "paper, section 3.3: two convolutions with BatchNorm and GELU between them",
            "official code and timm: GELU first, then BatchNorm; in a block it comes between attention and MLP",
        ),
        "the official code",
        "tests/parts/test_xcit_parts.py::test_local_interaction_channel_by_channel",
    ),
)
