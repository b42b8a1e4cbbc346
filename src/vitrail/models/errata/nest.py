"""Errata of NesT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "nest",
        "Order of channels between attention and its projection",
        (
            "official code (Flax), and attention everywhere else: head by head, (h, d)",
            "timm: channel by channel, (d, h), in its module and in the weights that it converted",
        ),
        "(h, d); timm's projections are reordered when they are read and written",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
    Erratum(
        "nest",
        "Padding of the max pooling between levels",
        (
            "official code (JAX), timm's `nest_*_jx`: SAME, of an even map one row below and one column right",
            "timm's `nest_*`, which have no released weights: one row and column on every side",
        ),
        "each variant as its source: `padding`",
        "tests/weights/test_weights_parity.py::test_same_weights_same_logits",
    ),
    Erratum(
        "nest",
        "Blocks at another image size",
        (
            "paper: four blocks become one at each level, so their number is fixed and the last level is one block",
            "timm: the same, at the size that it is made for, squares that blocks divide alone; its filter for position"
            " tables looks for keys (`pos_embed_`) that no file has, so they are not resized",
        ),
        "the paper, at every size: blocks are as large as the map needs, padding is masked, tables are resized",
        "tests/parts/test_even_blocks.py::test_blocks_are_as_large_as_the_map_needs",
    ),
    Erratum(
        "nest",
        "Multiply-adds of NesT-S",
        ("paper: 10.4 G", "timm's module, counted: 10.323 G, with the paper's 38 M parameters"),
        "what is counted; NesT-T (5.8 G) and NesT-B (17.9 G) agree with the paper",
        "tests/inference/test_cost.py::test_the_small_nest_costs_less_than_its_paper_prints",
    ),
)
