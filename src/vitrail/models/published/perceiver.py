"""Published figures of perceiver."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "perceiver_io_learned": Published(224, 62_255_848, 239_019_466_752),
    "perceiver_io_fourier": Published(224, 48_440_627, 203_062_372_352),
    "perceiver_io_conv": Published(224, 48_646_522, 184_622_747_784),
}
