"""Linear layers, and wrappers that keep unconverted modules in their own dtype."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.native.casts import as_residual, cast
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import linear, pack_linear


class FusedLinear(nn.Module):
    """A linear layer with packed weights; its bias stays readable, as window attention reads it for padding."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.bias = layer.bias
        self.packed = pack_linear(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return linear(x, self.packed)


class InFp32(nn.Module):
    """Casts the input of a module to fp32: rounding errors of the last norm and the head are not averaged out."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Cast and compute."""
        return self.module(x.float())


class DtypeBoundary(nn.Module):
    """Wraps an unconverted module: casts inputs to the compute dtype, outputs to the residual dtype."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *given: Any) -> Any:
        """Cast, compute, cast back."""
        y = self.module(*(cast(x, self.dtype) if _is_float(x) else x for x in given))
        if isinstance(y, Tensor):
            return as_residual(y, RESIDUAL[self.dtype])
        return tuple(as_residual(part, RESIDUAL[self.dtype]) if _is_float(part) else part for part in y)


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def fuse_linear(layer: nn.Linear, dtype: torch.dtype) -> FusedLinear:
    """Return the fused linear layer.

    Raises:
        NotConverted: it has hooks, or an odd number of inputs in bf16.
    """
    if has_hooks(layer):
        raise NotConverted("it has hooks or a forward of its own")
    if dtype == torch.bfloat16 and layer.in_features % 2:
        raise NotConverted(f"bf16 needs an even number of inputs, got {layer.in_features}")
    return FusedLinear(layer, dtype)
