"""Published figures of botnet."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "botnet26t_256": Published(256, 12_488_672, 3_291_037_696, 79.26, "c1_in1k", "timm 3.297 G"),
    "botnet50_s1": Published(224, 20_859_176, 5_410_217_984, note="paper 20.8 M"),
}
