"""Folding of norm weights and LayerScale into a linear layer, in fp32, before any rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.parts.regularisation import LayerScale


@dataclass(frozen=True)
class NormAffine:
    """Weight and bias of a LayerNorm, to fold into the next layer; `eps` is None for other norms, which stay."""

    weight: Tensor
    bias: Tensor
    eps: float | None

    @classmethod
    def of(cls, norm: nn.Module, width: int) -> "NormAffine":
        """Read the weights of a norm over `width` channels; identity weights for another norm."""
        zeros = torch.zeros(width, dtype=torch.float32, device="cpu")
        ones = zeros + 1
        if type(norm) is not nn.LayerNorm or norm.normalized_shape != (width,) or has_hooks(norm):
            return cls(ones, zeros, None)
        return cls(
            ones if norm.weight is None else norm.weight.detach().float(),
            zeros if norm.bias is None else norm.bias.detach().float(),
            norm.eps,
        )

    def folded(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer whose input is normalised without weight and bias."""
        weight = layer.weight.detach().float()
        bias = weight @ self.bias
        return weight * self.weight, bias if layer.bias is None else bias + layer.bias.detach().float()


def scaled(layer: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer with the LayerScale after it folded in.

    Raises:
        NotConverted: the scale is neither LayerScale nor identity.
    """
    if type(scale) not in (nn.Identity, LayerScale):
        raise NotConverted(f"its scale is {type(scale).__name__}")
    weight, bias = layer.weight.detach().float(), None if layer.bias is None else layer.bias.detach().float()
    if isinstance(scale, LayerScale):
        gamma = scale.gamma.detach().float()
        return weight * gamma[:, None], None if bias is None else bias * gamma
    return weight, bias
