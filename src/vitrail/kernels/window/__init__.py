"""Attention within windows, or any other groups of tokens that a table names; no token has to be moved.

Swin Transformer, section 3.2: shift, partition, attention with relative bias and mask, reverse, all in one operation.
"""

from vitrail.kernels.dispatch import Backend, Kernel
from vitrail.kernels.window.compiled import attend as compiled
from vitrail.kernels.window.compiled import refuses as compiled_refuses
from vitrail.kernels.window.gather import attend as gather
from vitrail.kernels.window.gather import refuses as gather_refuses
from vitrail.kernels.window.reference import attend as reference
from vitrail.kernels.window.triton_backend import attend as triton
from vitrail.kernels.window.triton_backend import refuses as triton_refuses

window = Kernel(
    "window",
    [
        Backend("triton", triton, triton_refuses),
        Backend("compiled", compiled, compiled_refuses),
        Backend("gather", gather, gather_refuses),
        Backend("reference", reference, lambda qkv, padding, bias, kinds, slots, heads: None),
    ],
)
