"""Linear layers that round their weights in training, so that the rounded model is the one that learns."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vitrail.parts.quantized_linear import QuantizedLinear, absmax, quantized


class FakeQuantizedLinear(nn.Linear):
    """Linear layer whose forward pass uses the decoded codes of its weights, and whose gradient ignores the rounding.

    y = Q(W) x + b, dL/dW = dL/dQ(W)

    "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", section 4 (the
    straight-through estimator), and "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3. Scales follow the largest weight of each group, so no gradient is
    clipped. The weights stay in fp32 under their usual name.

    Args:
        layer: layer whose weights and bias it takes over.
        kind: format of the codes.

    Example:
        >>> from vitrail.parts.quantized_linear import Int8Linear
        >>> layer = FakeQuantizedLinear(nn.Linear(4, 2), Int8Linear)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> layer.weight.grad.tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, layer: nn.Linear, kind: type[QuantizedLinear]):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        self.weight, self.bias = layer.weight, layer.bias  # pyright: ignore[reportIncompatibleVariableOverride]
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Round the weights and apply the layer."""
        return linear(input, _Rounded.apply(self.weight, self), self.bias)  # pyright: ignore[reportArgumentType]

    def decoded(self) -> Tensor:
        """Return the weights that quantizing the layer gives, `(out, in)`."""
        layer = quantized(self, self.kind)
        layer.encode(self.weight, absmax)
        return layer.weight.to(self.weight.dtype)


class _Rounded(torch.autograd.Function):
    """Decoded weights forward, the identity backward."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: FakeQuantizedLinear) -> Tensor:
        return layer.decoded()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
