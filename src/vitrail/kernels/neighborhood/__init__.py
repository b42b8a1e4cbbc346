"""Neighborhood attention: each cell attends to the `k x k` cells around it, side by side or `dilation` cells apart.

"Neighborhood Attention Transformer" and "Dilated Neighborhood Attention Transformer".
"""

from vitrail.kernels.dispatch import Backend, Kernel
from vitrail.kernels.neighborhood.compiled import attend as compiled
from vitrail.kernels.neighborhood.compiled import refuses as compiled_refuses
from vitrail.kernels.neighborhood.reference import attend as reference
from vitrail.kernels.neighborhood.tiles import attend as tiles
from vitrail.kernels.neighborhood.tiles import refuses as tiles_refuses
from vitrail.kernels.neighborhood.triton_backend import attend as triton
from vitrail.kernels.neighborhood.triton_backend import refuses as triton_refuses

neighborhood = Kernel(
    "neighborhood",
    [
        Backend("triton", triton, triton_refuses),
        Backend("compiled", compiled, compiled_refuses),
        Backend("tiles", tiles, tiles_refuses),
        Backend("reference", reference, lambda q, k, v, bias, kernel_size, dilation: None),
    ],
)
