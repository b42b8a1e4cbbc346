"""Published figures of swin."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "swin_tiny_patch4_window7_224": Published(224, 28_288_354, 4_490_566_656, 81.39, "ms_in1k", "paper 81.2"),
    "swin_small_patch4_window7_224": Published(224, 49_606_258, 8_740_875_264, 83.23, "ms_in1k", "paper 83.2"),
    "swin_base_patch4_window7_224": Published(224, 87_768_224, 15_430_946_816, 83.6, "ms_in1k", "paper 83.5"),
    "swin_base_patch4_window12_384": Published(384, 87_903_584, 47_083_134_976, 84.48, "ms_in1k", "paper 84.5"),
    "swin_large_patch4_window7_224": Published(
        224, 196_532_476, 34_475_759_616, 86.32, "ms_in22k_ft_in1k", "paper 86.3"
    ),
    "swin_large_patch4_window12_384": Published(
        384, 196_735_516, 103_919_087_616, 87.14, "ms_in22k_ft_in1k", "paper 87.3"
    ),
}
