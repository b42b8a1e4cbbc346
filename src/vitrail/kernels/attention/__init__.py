"""Softmax attention: `softmax(q k^T / sqrt(d) + bias) v`."""

from vitrail.kernels.attention.reference import attend as reference
from vitrail.kernels.attention.sdpa import attend as sdpa
from vitrail.kernels.attention.sdpa import unsupported_reason as sdpa_unsupported_reason
from vitrail.kernels.dispatch import Backend, Op

attention = Op(
    "attention",
    [
        Backend("sdpa", sdpa, sdpa_unsupported_reason),
        Backend("reference", reference, lambda q, k, v, bias: None),
    ],
)
