"""Published figures of pointnet_parts, counted at 1,024 points."""

from vitrail.models.published.figures import points

PUBLISHED = {"pointnet_parts": points(3_542_139, 1_192_111_360, "sizes of the paper's figure 2", "parts")}
