"""Scales and shifts that stand beside a linear layer, folded into it in fp32, before any rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted
from vitrail.parts.regularisation import LayerScale


@dataclass(frozen=True)
class Affine:
    """Scale and shift of a LayerNorm, to be folded into the layer behind it; `eps` is None for other norms."""

    weight: Tensor
    bias: Tensor
    eps: float | None

    @classmethod
    def of(cls, norm: nn.Module, width: int) -> "Affine":
        """Read them off a norm; another norm keeps its own."""
        zeros = torch.zeros(width, dtype=torch.float32, device="cpu")
        ones = zeros + 1
        if type(norm) is not nn.LayerNorm or norm.normalized_shape != (width,):
            return cls(ones, zeros, None)
        return cls(
            ones if norm.weight is None else norm.weight.detach().float(),
            zeros if norm.bias is None else norm.bias.detach().float(),
            norm.eps,
        )

    def folded(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer that takes its input before scale and shift."""
        weight = layer.weight.detach().float()
        bias = weight @ self.bias
        return weight * self.weight, bias if layer.bias is None else bias + layer.bias.detach().float()


def scaled(layer: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer with the LayerScale behind it.

    Raises:
        NotConverted: what is behind it is something else.
    """
    if type(scale) not in (nn.Identity, LayerScale):
        raise NotConverted(f"what scales it is {type(scale).__name__}")
    weight, bias = layer.weight.detach().float(), None if layer.bias is None else layer.bias.detach().float()
    if isinstance(scale, LayerScale):
        gamma = scale.gamma.detach().float()
        return weight * gamma[:, None], None if bias is None else bias * gamma
    return weight, bias
