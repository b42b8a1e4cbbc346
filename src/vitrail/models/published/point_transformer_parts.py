"""Published figures of point_transformer_parts, counted at 1,024 points."""

from vitrail.models.published.figures import points

PUBLISHED = {
    "point_transformer_engel_parts": points(
        13_994_793, 8_972_304_384, "paper ShapeNet parts 85.9 mean IoU of instances", "parts"
    ),
}
