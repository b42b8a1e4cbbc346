"""Published figures of SwinIR: parameters of the authors' code; multiply-adds at 64 x 64 input pixels (JPEG: 63 x 63).

The paper's 878, 886 and 897 thousand parameters of the lightweight models leave the tables of relative positions out.
"""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "swinir_classical_x2": Published(64, 11_752_487, 51_055_607_808, task="restore"),
    "swinir_classical_x3": Published(64, 11_937_127, 51_845_971_968, task="restore"),
    "swinir_classical_x4": Published(64, 11_900_199, 53_556_461_568, task="restore"),
    "swinir_classical_x8": Published(64, 12_047_911, 63_559_876_608, task="restore"),
    "swinir_light_x2": Published(64, 910_152, 4_282_859_520, task="restore"),
    "swinir_light_x3": Published(64, 918_267, 4_316_037_120, task="restore"),
    "swinir_light_x4": Published(64, 929_628, 4_362_485_760, task="restore"),
    "swinir_real_m_x4": Published(64, 11_715_559, 55_972_380_672, task="restore"),
    "swinir_real_l_x4": Published(64, 28_013_059, 125_622_484_992, task="restore"),
    "swinir_gray_denoise": Published(64, 11_497_681, 49_992_007_680, task="restore"),
    "swinir_color_denoise": Published(64, 11_504_163, 50_018_549_760, task="restore"),
    "swinir_gray_jpeg": Published(63, 11_485_585, 47_670_388_920, task="restore"),
    "swinir_color_jpeg": Published(63, 11_492_067, 47_696_108_040, task="restore"),
}
