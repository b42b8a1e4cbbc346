"""Who must not meet compiled code: whatever follows operations instead of computing numbers."""

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn import Parameter


def is_tracing(*tensors: Tensor | None) -> bool:
    """Say whether operations on these tensors are being compiled, exported, traced or transformed.

    Compiled code reads memory, and a tensor that stands for others (fake, sharded, wrapped by a transform) has none.

    Example:
        >>> is_tracing(torch.zeros(2))
        False
        >>> torch.func.vmap(lambda x: x + is_tracing(x))(torch.zeros(2))
        tensor([1., 1.])
    """
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if tracing or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return True
    if _functorch.peek_interpreter_stack() is not None:
        return True
    return any(x is not None and type(x) not in (Tensor, Parameter) for x in tensors)
