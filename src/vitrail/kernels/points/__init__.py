"""Operations on point clouds: farthest-point sampling, nearest neighbors, ball query with one or several radii."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.points import cpp, reference

farthest_points = Op(
    "farthest points",
    [
        Backend("cpp", cpp.farthest_points, cpp.unsupported_reason),
        Backend("reference", reference.farthest_points, lambda points, count, start: None),
    ],
)
nearest_points = Op(
    "nearest points",
    [
        Backend("cpp", cpp.nearest_points, cpp.unsupported_reason),
        Backend("reference", reference.nearest_points, lambda points, queries, k: None),
    ],
)
ball_query = Op(
    "ball query",
    [
        Backend("cpp", cpp.ball_query, cpp.unsupported_reason),
        Backend("reference", reference.ball_query, lambda points, queries, radii, sizes: None),
    ],
)
