"""Attention with its norm and residual sum: `x + drop_scale * proj(attend(qkv(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.fused_attention.cpp import attend as cpp
from vitrail.kernels.fused_attention.cpp import unsupported_reason as cpp_unsupported_reason
from vitrail.kernels.fused_attention.reference import attend as reference

fused_attention = Op(
    "fused attention",
    [
        Backend("cpp", cpp, cpp_unsupported_reason),
        Backend("reference", reference, lambda x, norm, qkv, proj, meeting, drop_scale: None),
    ],
)
