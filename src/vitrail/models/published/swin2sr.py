"""Published figures of Swin2SR: parameters of Hugging Face's models; multiply-adds at 64 x 64 input pixels."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "swin2sr_classical_x2": Published(64, 12_091_571, 52_017_758_208, task="restore"),
    "swin2sr_classical_x4": Published(64, 12_239_283, 54_518_611_968, task="restore"),
    "swin2sr_light_x2": Published(64, 1_005_348, 4_378_705_920, task="restore"),
    "swin2sr_real_x4": Published(64, 12_054_643, 56_934_531_072, task="restore"),
}
