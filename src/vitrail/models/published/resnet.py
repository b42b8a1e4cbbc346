"""Published figures of resnet."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "resnet50": Published(224, 25_557_032, 4_089_184_256, note="torchvision V1 76.13, 4.09 G; paper 3.8 G"),
    "resnet101": Published(224, 44_549_160, 7_801_405_440, note="torchvision V1 77.37, 7.80 G; paper 7.6 G"),
    "resnet152": Published(224, 60_192_808, 11_513_626_624, note="torchvision V1 78.31, 11.51 G; paper 11.3 G"),
}
