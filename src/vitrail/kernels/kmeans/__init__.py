"""Exact k-means of weighted numbers."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.kmeans import cpp, reference

kmeans = Op(
    "kmeans",
    [
        Backend("cpp", cpp.kmeans, cpp.unsupported_reason),
        Backend("reference", reference.kmeans, lambda values, weights, k: None),
    ],
)
