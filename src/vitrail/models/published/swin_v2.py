"""Published figures of swin_v2."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "swinv2_tiny_window8_256": Published(256, 28_347_154, 5_939_690_496, 81.82, "ms_in1k", "official 81.8"),
    "swinv2_tiny_window16_256": Published(256, 28_347_154, 6_660_619_264, 82.83, "ms_in1k", "official 82.8"),
    "swinv2_small_window8_256": Published(256, 49_728_418, 11_545_857_024, 83.84, "ms_in1k", "official 83.7"),
    "swinv2_small_window16_256": Published(256, 49_728_418, 12_783_078_400, 84.22, "ms_in1k", "official 84.1"),
    "swinv2_base_window8_256": Published(256, 87_918_816, 20_325_134_336, 84.25, "ms_in1k", "official 84.2"),
    "swinv2_base_window16_256": Published(256, 87_918_816, 21_969_235_968, 84.61, "ms_in1k", "official 84.6"),
    "swinv2_base_window12to16_192to256": Published(
        256, 87_918_816, 21_969_235_968, 86.27, "ms_in22k_ft_in1k", "official 86.2"
    ),
    "swinv2_base_window12to24_192to384": Published(
        384, 87_918_816, 55_148_310_528, 87.14, "ms_in22k_ft_in1k", "official 87.1"
    ),
    "swinv2_large_window12to16_192to256": Published(
        256, 196_739_932, 47_740_303_360, 86.93, "ms_in22k_ft_in1k", "official 86.9"
    ),
    "swinv2_large_window12to24_192to384": Published(
        384, 196_739_932, 115_991_427_072, 87.47, "ms_in22k_ft_in1k", "official 87.6"
    ),
}
