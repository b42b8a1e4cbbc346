"""Single layers in their fast form."""

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted
from vitrail.grid import Grid
from vitrail.native.dtypes import RESIDUAL, as_residual
from vitrail.native.gemm import linear, pack_linear


class FusedLinear(nn.Module):
    """A linear layer with packed weights; its bias can be read, as window attention does for padding."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.bias = layer.bias
        self.packed = pack_linear(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and shift."""
        return linear(x, self.packed)


class InFp32(nn.Module):
    """What computes in fp32 whatever comes: nothing behind it could average an error away."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Widen, and compute."""
        return self.module(x.float())


class DtypeBoundary(nn.Module):
    """What stays PyTorch, in the precision of products, where others hand a residual on that is stored otherwise."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor, *grid: Grid) -> tuple[Tensor, Grid]:
        """Narrow, compute, and store the answer as the residual."""
        y, after = self.module(x.to(self.dtype), *grid)
        return as_residual(y, RESIDUAL[self.dtype]), after


def fuse_linear(layer: nn.Linear, dtype: torch.dtype) -> FusedLinear:
    """Return the fast form of a linear layer.

    Raises:
        NotConverted: an odd number of inputs in bf16.
    """
    if dtype == torch.bfloat16 and layer.in_features % 2:
        raise NotConverted("an odd number of inputs cannot be read in pairs")
    return FusedLinear(layer, dtype)
