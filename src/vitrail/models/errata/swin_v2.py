"""Errata of Swin V2."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "swin_v2",
        "Log-spaced offsets: which unit, which range",
        (
            "paper, equation 4: sign(x) log(1 + |x|) of offsets in cells",
            "official code: offsets divided by the window's side less one, times 8, then log2(1 + |x|) / log2(8);"
            " the bias is 16 sigmoid of the MLP",
        ),
        "the official code, which made the weights",
        "tests/parts/test_cosine_window_attention.py::test_against_the_twin",
    ),
    Erratum(
        "swin_v2",
        "Order of reduction and norm in patch merging",
        (
            "paper: none stated; Swin normalises 4 C channels, then reduces",
            "official code, timm, torchvision, Hugging Face: reduce, then normalise 2 C channels",
        ),
        "the official code",
        "tests/parts/test_merging.py::test_patch_merging_reads_down_before_right_and_pads_with_zeros",
    ),
    Erratum(
        "swin_v2",
        "Bias of the keys",
        (
            "official code, timm, Hugging Face: none",
            "torchvision: stored, and set to zero in each forward pass (4,416 parameters more in T)",
        ),
        "none; written as zeros for torchvision",
        "tests/weights/test_weights_parity.py::test_there_and_back_gives_the_peers_own_state_dict",
    ),
    Erratum(
        "swin_v2",
        "Window of a stage whose map is smaller than the window",
        (
            "official code, timm, Hugging Face: as large as the map at the size of the config, offsets in its units",
            "torchvision: the window stays, the map is padded",
        ),
        "the official code; equal to torchvision in all of its variants",
        "tests/weights/test_weights_swin_v2_sizes.py::test_torchvision_is_not_given_windows_that_it_does_not_have",
    ),
)
