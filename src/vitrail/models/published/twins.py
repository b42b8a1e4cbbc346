"""Published figures of twins."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "twins_pcpvt_small": Published(224, 24_106_216, 3_809_459_968, 81.12, "in1k", "paper 81.2"),
    "twins_pcpvt_base": Published(224, 43_828_456, 6_652_933_888, 82.72, "in1k", "paper 82.7"),
    "twins_pcpvt_large": Published(224, 60_989_672, 9_807_524_096, 83.16, "in1k", "paper 83.1"),
    "twins_svt_small": Published(224, 24_060_776, 2_927_353_344, 81.69, "in1k", "paper 81.7"),
    "twins_svt_base": Published(224, 56_070_952, 8_562_612_480, 83.12, "in1k", "paper 83.2"),
    "twins_svt_large": Published(224, 99_271_400, 15_111_777_280, 83.72, "in1k", "paper 83.7"),
}
