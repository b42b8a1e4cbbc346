"""Neighborhood attention with its norm and residual: `x + drop_scale * proj(attend(qkv(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.fused_neighborhood.cpp import attend as cpp
from vitrail.kernels.fused_neighborhood.cpp import unsupported_reason as cpp_unsupported_reason
from vitrail.kernels.fused_neighborhood.reference import attend as reference

fused_neighborhood = Op(
    "fused neighborhood",
    [
        Backend("cpp", cpp, cpp_unsupported_reason),
        Backend("reference", reference, lambda x, norm, qkv, proj, spec, drop_scale: None),
    ],
)
