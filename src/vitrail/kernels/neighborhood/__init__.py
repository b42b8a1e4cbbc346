"""Neighborhood attention: each cell attends to the `k x k` cells around it, side by side or `dilation` cells apart.

"Neighborhood Attention Transformer" and "Dilated Neighborhood Attention Transformer".
"""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.neighborhood.cpp import attend as cpp
from vitrail.kernels.neighborhood.cpp import unsupported_reason as cpp_unsupported_reason
from vitrail.kernels.neighborhood.reference import attend as reference
from vitrail.kernels.neighborhood.tiled_sdpa import attend as tiles
from vitrail.kernels.neighborhood.tiled_sdpa import unsupported_reason as tiles_unsupported_reason
from vitrail.kernels.neighborhood.triton_backend import attend as triton
from vitrail.kernels.neighborhood.triton_backend import unsupported_reason as triton_unsupported_reason

neighborhood = Op(
    "neighborhood",
    [
        Backend("triton", triton, triton_unsupported_reason),
        Backend("cpp", cpp, cpp_unsupported_reason),
        Backend("tiled_sdpa", tiles, tiles_unsupported_reason),
        Backend("reference", reference, lambda q, k, v, bias, kernel_size, dilation: None),
    ],
)
