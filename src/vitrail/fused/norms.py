"""Norms that run before a fused branch, because its first layer cannot have them folded in."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine
from vitrail.fused.unsupported import has_hooks, require_libraries
from vitrail.native.layer_norm import rms_norm
from vitrail.native.norms import LaneNorm, lanes
from vitrail.parts.sequence_norms import RMSNorm
from vitrail.shapes import Tokens


class FusedRMSNorm(nn.Module):
    """An RMSNorm in one pass; the result has the dtype of the residual."""

    def __init__(self, norm: RMSNorm):
        super().__init__()
        weight = norm.weight.detach().float()
        self.norm = LaneNorm(lanes(weight), lanes(torch.zeros_like(weight)), norm.eps)

    def forward(self, x: Tokens) -> Tensor:
        """Normalise each token."""
        return rms_norm(x, self.norm)


def norm_before(norm: nn.Module, affine: NormAffine) -> nn.Module:
    """Return what runs before a branch: nothing if the norm is folded in (`affine`), else the norm.

    Raises:
        NotConverted: a native library cannot be built.
    """
    if affine.eps is not None:
        return nn.Identity()
    if type(norm) is not RMSNorm or has_hooks(norm):
        return norm
    require_libraries("layer_norm")
    return FusedRMSNorm(norm)
