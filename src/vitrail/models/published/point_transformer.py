"""Published figures of point_transformer, counted at 1,024 points."""

from vitrail.models.published.figures import points

PUBLISHED = {
    "point_transformer_engel": points(
        17_461_087, 4_682_322_944, "paper ModelNet40 92.8 with normals; sizes of the official code"
    ),
}
