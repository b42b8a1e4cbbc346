"""A branch of a block whole: `x + keep * f(norm(x))`, with f an attention or an MLP.

What lies between the steps of a branch need not all be stored for its gradient when the branch is one operation.
"""

from vitrail.kernels.branch.attention import attend
from vitrail.kernels.branch.attention import refuses as attend_refuses
from vitrail.kernels.branch.mlp import refuses as transform_refuses
from vitrail.kernels.branch.mlp import transform
from vitrail.kernels.branch.reference import attention, mlp
from vitrail.kernels.dispatch import Backend, Kernel

attention_branch = Kernel(
    "attention branch",
    [
        Backend("compiled", attend, attend_refuses),
        Backend("reference", attention, lambda x, norm, qkv, proj, meeting, keep: None),
    ],
)
mlp_branch = Kernel(
    "MLP branch",
    [
        Backend("compiled", transform, transform_refuses),
        Backend("reference", mlp, lambda x, norm, first, second, keep: None),
    ],
)
