"""Published figures of dinov2."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vit_small_patch14_dinov2": Published(518, 22_056_192, 46_696_739_328, note="official, linear probe at 224: 81.1"),
    "vit_base_patch14_dinov2": Published(518, 86_579_712, 151_573_718_016, note="official, linear probe at 224: 84.5"),
    "vit_large_patch14_dinov2": Published(
        518, 304_367_616, 506_803_826_688, note="official, linear probe at 224: 86.3"
    ),
    "vit_giant_patch14_dinov2": Published(
        518, 1_136_479_232, 1_783_342_958_592, note="official, linear probe at 224: 86.5"
    ),
    "vit_small_patch14_reg4_dinov2": Published(
        518, 22_057_344, 46_882_828_800, note="official, linear probe at 224: 80.9"
    ),
    "vit_base_patch14_reg4_dinov2": Published(
        518, 86_582_016, 152_115_766_272, note="official, linear probe at 224: 84.6"
    ),
    "vit_large_patch14_reg4_dinov2": Published(
        518, 304_370_688, 508_551_278_592, note="official, linear probe at 224: 86.7"
    ),
    "vit_giant_patch14_reg4_dinov2": Published(
        518, 1_136_483_840, 1_789_221_537_792, note="official, linear probe at 224: 87.1"
    ),
}
