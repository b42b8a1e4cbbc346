"""A bias and the exact GELU after it, in one pass; its gradient adds the bias's up on the way."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.gelu.reference import bias_gelu as reference
from vitrail.kernels.gelu.triton_backend import bias_gelu as triton
from vitrail.kernels.gelu.triton_backend import unsupported_reason as triton_unsupported_reason

gelu = Op(
    "gelu",
    [
        Backend("triton", triton, triton_unsupported_reason),
        Backend("reference", reference, lambda x, bias: None),
    ],
)
