"""Published figures of deit."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "deit_tiny_patch16_224": Published(224, 5_717_416, 1_253_683_200, 72.19, "fb_in1k", "paper 72.2"),
    "deit_small_patch16_224": Published(224, 22_050_664, 4_598_882_304, 79.86, "fb_in1k", "paper 79.9"),
    "deit_base_patch16_224": Published(224, 86_567_656, 17_563_828_224, 81.98, "fb_in1k", "paper 81.8"),
    "deit_base_patch16_384": Published(384, 86_859_496, 55_484_350_464, 83.11, "fb_in1k", "official 82.9"),
    "deit_tiny_distilled_patch16_224": Published(224, 5_910_800, 1_261_003_776, 74.54, "fb_in1k", "paper 74.5"),
    "deit_small_distilled_patch16_224": Published(224, 22_436_432, 4_624_140_288, 81.2, "fb_in1k", "paper 81.2"),
    "deit_base_distilled_patch16_224": Published(224, 87_338_192, 17_656_811_520, 83.38, "fb_in1k", "paper 83.4"),
    "deit_base_distilled_patch16_384": Published(
        384, 87_630_032, 55_591_342_080, 85.44, "fb_in1k", "official 85.2, mmpretrain 85.55: crops differ"
    ),
}
