"""An attention with the norm before it and the sum behind it: `x + keep * proj(attend(qkv(norm(x))))`."""

from vitrail.kernels.attention_branch.compiled import attend as compiled
from vitrail.kernels.attention_branch.compiled import refuses as compiled_refuses
from vitrail.kernels.attention_branch.reference import attend as reference
from vitrail.kernels.dispatch import Backend, Kernel

attention_branch = Kernel(
    "attention branch",
    [
        Backend("compiled", compiled, compiled_refuses),
        Backend("reference", reference, lambda x, norm, qkv, proj, meeting, keep: None),
    ],
)
