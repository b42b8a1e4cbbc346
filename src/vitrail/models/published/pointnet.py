"""Published figures of pointnet, counted at 1,024 points."""

from vitrail.models.published.figures import points

PUBLISHED = {
    "pointnet": points(
        3_480_049, 448_025_856, "paper 3.5 M parameters, 440 M operations, ModelNet40 89.2 (tables 1 and 6)"
    ),
    "pointnet_vanilla": points(
        819_624, 151_857_152, "paper 0.8 M parameters, 148 M operations, ModelNet40 87.1 (tables 5 and 6)"
    ),
}
