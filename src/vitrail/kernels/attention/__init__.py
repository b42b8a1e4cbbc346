"""Softmax attention: `softmax(q k^T / sqrt(d) + bias) v`."""

from vitrail.kernels.attention.reference import attend as reference
from vitrail.kernels.attention.sdpa import attend as sdpa
from vitrail.kernels.attention.sdpa import refuses as sdpa_refuses
from vitrail.kernels.dispatch import Backend, Kernel

attention = Kernel(
    "attention",
    [
        Backend("sdpa", sdpa, sdpa_refuses),
        Backend("reference", reference, lambda q, k, v, bias: None),
    ],
)
