"""Published figures of nest."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "nest_tiny_jx": Published(224, 17_057_608, 5_807_152_128, 81.43, "goog_in1k", "paper 81.5"),
    "nest_small_jx": Published(224, 38_351_176, 10_322_992_128, 83.13, "goog_in1k", "paper 83.3"),
    "nest_base_jx": Published(224, 67_723_368, 17_925_787_648, 83.55, "goog_in1k", "paper 83.8"),
    "nest_tiny": Published(224, 17_057_608, 5_807_152_128),
    "nest_small": Published(224, 38_351_176, 10_322_992_128),
    "nest_base": Published(224, 67_723_368, 17_925_787_648),
}
