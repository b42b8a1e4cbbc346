"""Attention to neighbours with the norm before it and the sum behind it: `x + keep * proj(attend(qkv(norm(x))))`."""

from vitrail.kernels.dispatch import Backend, Kernel
from vitrail.kernels.neighborhood_branch.compiled import attend as compiled
from vitrail.kernels.neighborhood_branch.compiled import refuses as compiled_refuses
from vitrail.kernels.neighborhood_branch.reference import attend as reference

neighborhood_branch = Kernel(
    "neighborhood branch",
    [
        Backend("compiled", compiled, compiled_refuses),
        Backend("reference", reference, lambda x, norm, qkv, proj, vicinity, keep: None),
    ],
)
