"""Attention within windows, or any other groups of tokens that a table names; no token has to be moved.

Swin Transformer, section 3.2: shift, partition, attention with relative bias and mask, reverse, all in one operation.
"""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.window.cpp import attend as cpp
from vitrail.kernels.window.cpp import unsupported_reason as cpp_unsupported_reason
from vitrail.kernels.window.gather_sdpa import attend as gather
from vitrail.kernels.window.gather_sdpa import unsupported_reason as gather_unsupported_reason
from vitrail.kernels.window.reference import attend as reference
from vitrail.kernels.window.triton_backend import attend as triton
from vitrail.kernels.window.triton_backend import unsupported_reason as triton_unsupported_reason

window = Op(
    "window",
    [
        Backend("triton", triton, triton_unsupported_reason),
        Backend("cpp", cpp, cpp_unsupported_reason),
        Backend("gather_sdpa", gather, gather_unsupported_reason),
        Backend("reference", reference, lambda qkv, padding, bias, mask_index, token_index, heads: None),
    ],
)
