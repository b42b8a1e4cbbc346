"""Detects tracing (torch.compile, export, jit.trace, functorch, fake tensors), where native code cannot run."""

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn import Parameter


def is_tracing(*tensors: Tensor | None) -> bool:
    """Return whether operations on these tensors are compiled, exported, traced or transformed.

    Native code reads memory, and a fake, sharded or transformed tensor has none.

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
