"""An MLP with the norm before it and the sum behind it: `x + keep * second(gelu(first(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Kernel
from vitrail.kernels.mlp_branch.compiled import refuses as compiled_refuses
from vitrail.kernels.mlp_branch.compiled import transform as compiled
from vitrail.kernels.mlp_branch.reference import transform as reference
from vitrail.kernels.mlp_branch.triton_backend import refuses as triton_refuses
from vitrail.kernels.mlp_branch.triton_backend import transform as triton

mlp_branch = Kernel(
    "mlp branch",
    [
        Backend("triton", triton, triton_refuses),
        Backend("compiled", compiled, compiled_refuses),
        Backend("reference", reference, lambda x, norm, first, second, keep: None),
    ],
)
