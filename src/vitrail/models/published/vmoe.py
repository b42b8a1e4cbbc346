"""Published figures of vmoe."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "vmoe_s32_last2": Published(224, 56_736_744, 1_628_278_784),
    "vmoe_s32_every2": Published(224, 86_140_904, 1_900_204_032),
    "vmoe_b16_last2": Published(224, 152_693_992, 19_884_748_800),
    "vmoe_b16_every2": Published(224, 284_946_664, 24_526_589_952),
}
