"""MLP with its norm and residual sum: `x + drop_scale * second(gelu(first(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.fused_mlp.cpp import transform as cpp
from vitrail.kernels.fused_mlp.cpp import unsupported_reason as cpp_unsupported_reason
from vitrail.kernels.fused_mlp.reference import transform as reference
from vitrail.kernels.fused_mlp.triton_backend import transform as triton
from vitrail.kernels.fused_mlp.triton_backend import unsupported_reason as triton_unsupported_reason

fused_mlp = Op(
    "fused mlp",
    [
        Backend("triton", triton, triton_unsupported_reason),
        Backend("cpp", cpp, cpp_unsupported_reason),
        Backend("reference", reference, lambda x, norm, first, second, drop_scale: None),
    ],
)
