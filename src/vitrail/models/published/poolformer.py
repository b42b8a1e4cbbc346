"""Published figures of poolformer."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "poolformer_s12": Published(224, 11_915_176, 1_812_267_008, 77.24, "sail_in1k", "paper 77.2"),
    "poolformer_s24": Published(224, 21_388_968, 3_392_208_896, 80.29, "sail_in1k", "paper 80.3"),
    "poolformer_s36": Published(224, 30_862_760, 4_972_150_784, 81.43, "sail_in1k", "paper 81.4"),
    "poolformer_m36": Published(224, 56_172_520, 8_758_788_096, 82.1, "sail_in1k", "paper 82.1"),
    "poolformer_m48": Published(224, 73_473_448, 11_533_320_192, 82.46, "sail_in1k", "paper 82.5"),
}
