"""An MLP with the norm before it and the sum behind it: `x + keep * second(gelu(first(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Kernel
from vitrail.kernels.mlp_branch.compiled import refuses as compiled_refuses
from vitrail.kernels.mlp_branch.compiled import transform as compiled
from vitrail.kernels.mlp_branch.reference import transform as reference

mlp_branch = Kernel(
    "mlp branch",
    [
        Backend("compiled", compiled, compiled_refuses),
        Backend("reference", reference, lambda x, norm, first, second, keep: None),
    ],
)
