"""Errata of VT-ResNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "vt_resnet",
        "Widths of the projections",
        (
            "paper (ICCV 2021), section 3: F_1, F_2, W_T->R and the projector's W_Q, W_K in C x C; no width of K and Q",
            "its first version's pseudo-code: K and Q to C / 2 channels, 1 x 1 convolutions of a map in 16 groups",
            "its table 8: VT-R50 21.4 M and 3.41 G, of which 0.13 G in the last stage. Dense queries of the projector"
            " alone, 196 cells x 1024^2, cost 0.21 G each, and with dense W_Q and W_K it has 25.3 M parameters",
            "its table 1: the last stage has 1 / 1.26 of ResNet's parameters in both VT-R50 and VT-R101, which is"
            " 40.4 M for VT-R101; its table 8: 41.5 M",
            "its table 2: VT-R34 21.8 M; its table 8: 19.2 M",
            "8 tokens instead of the text's 16: 3.41 and 7.13 G, the costs of its table 8 for VT-R50 and VT-R101",
        ),
        "K and Q to C / 2, the projector in 16 groups: 21.4 M as in table 8, and 40.4 M as in table 1; 3.52 G, not"
        " 3.41 G, as 16 tokens x 11.5 M of dense weights alone cost 0.18 G; the table seems to count 8. No code was"
        " released",
        "tests/models/test_published.py::test_vt_resnets_of_eight_tokens_cost_what_the_paper_says",
    ),
    Erratum(
        "vt_resnet",
        "Scale of the scores",
        ("paper, equations 3 and 5: none", "Attention Is All You Need: 1 / sqrt(d)"),
        "1 / sqrt(d) in the Transformer and the projector, none in the tokenizers",
        "tests/parts/test_visual_tokens.py::test_block_against_a_loop",
    ),
)
