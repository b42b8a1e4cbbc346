"""Residual sum and its LayerNorm in one kernel: the operation between the two branches of a block."""

from vitrail.kernels.add_layer_norm.reference import add_layer_norm as reference
from vitrail.kernels.add_layer_norm.triton_backend import add_layer_norm as triton
from vitrail.kernels.add_layer_norm.triton_backend import unsupported_reason as triton_unsupported_reason
from vitrail.kernels.dispatch import Backend, Op

add_layer_norm = Op(
    "add layer norm",
    [
        Backend("triton", triton, triton_unsupported_reason),
        Backend("reference", reference, lambda x, branch, weight, bias, eps: None),
    ],
)
