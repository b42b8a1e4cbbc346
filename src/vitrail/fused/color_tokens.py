"""Color tokens of an optimized model."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.grid import Grid
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.parts.color_tokens import ColorTokens
from vitrail.shapes import Image


class FusedColorTokens(nn.Module):
    """`ColorTokens` in fp32, whose result has the residual dtype: a rounded pixel may have another nearest color.

    Args:
        tokens: the module.
        dtype: compute dtype.
    """

    def __init__(self, tokens: ColorTokens, dtype: torch.dtype):
        super().__init__()
        self.tokens, self.dtype = [deepcopy(tokens).float()], dtype  # in a list: modules are cast to the residual dtype

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Quantise and look up."""
        x, grid = self.tokens[0](images)
        return as_residual(x, RESIDUAL[self.dtype]), grid


def fuse_color_tokens(tokens: ColorTokens, dtype: torch.dtype) -> FusedColorTokens:
    """Return the module in fp32.

    Raises:
        NotConverted: it has hooks.
    """
    if has_hooks(tokens):
        raise NotConverted("it has hooks or a forward of its own")
    return FusedColorTokens(tokens, dtype)
