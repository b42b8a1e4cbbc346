"""Published figures of perceiver_iterative."""

from vitrail.models.published.figures import Published

PUBLISHED = {"perceiver_fourier": Published(224, 44_912_254, 353_139_548_160, note="paper 44.9 M, 707.2 G FLOPs, 78.0")}
