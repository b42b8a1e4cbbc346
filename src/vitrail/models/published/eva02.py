"""Published figures of eva02."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "eva02_tiny_patch14_224": Published(224, 5_502_144, 1_697_518_080),
    "eva02_small_patch14_224": Published(224, 21_621_120, 6_123_561_984),
    "eva02_base_patch14_224": Published(224, 85_758_720, 23_161_227_264),
    "eva02_large_patch14_224": Published(224, 303_268_800, 80_999_350_272),
    "eva02_tiny_patch14_336": Published(336, 5_756_584, 4_662_312_960, 80.648, "mim_in22k_ft_in1k", "paper 80.7"),
    "eva02_small_patch14_336": Published(336, 22_129_000, 15_450_537_984, 85.770, "mim_in22k_ft_in1k", "paper 85.8"),
    "eva02_base_patch14_448": Published(448, 87_117_544, 106_886_332_416, 88.262, "mim_in22k_ft_in1k", "paper 88.3"),
    "eva02_large_patch14_448": Published(448, 305_080_232, 361_747_161_088, 89.634, "mim_in22k_ft_in1k", "paper 89.6"),
}
