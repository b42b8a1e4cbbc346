"""Token-mixing MLP without a transposed copy of the tokens.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Tokens have the residual dtype.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.native.allocator import empty
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import Operand, at, call
from vitrail.native.norms import LaneNorm, norm_args
from vitrail.shapes import Tokens


@dataclass(frozen=True)
class TokenLayer:
    """Linear layer over tokens: row-major weights, rows zero-padded to an even length, and the bias in fp32."""

    weight: Tensor
    bias: Tensor
    sums: Tensor

    @cached_property
    def operand(self) -> Operand:
        """Argument struct of the layer."""
        outputs, depth = self.weight.shape
        tensors = {"weight": self.weight, "bias": self.bias, "sums": self.sums}
        return Operand("TokenLayerArgs", **tensors, outputs=outputs, depth=depth)

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> "TokenLayer":
        """Pack a layer for the GEMM."""
        weight = layer.weight.detach().float()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().contiguous()
        return cls(pad(weight, (0, weight.shape[1] % 2)).to(dtype).contiguous(), bias, weight.sum(dim=1))


def token_mlp(x: Tokens, norm: LaneNorm, first: TokenLayer, second: TokenLayer) -> Tensor:
    """Return `x + W2 gelu(W1 norm(x)^T + b1) + b2`, transposed back: `(B, N, C)`.

    Args:
        x: tokens.
        norm: norm over the channels of each token.
        first: layer from N to hidden.
        second: layer from hidden to N.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    products = PRODUCTS[x.dtype]
    assert x.shape[1] == len(second.weight) and products == first.weight.dtype == second.weight.dtype
    batch, tokens, channels = x.shape
    call(
        *("token_mlp", "token_mlp", products),
        x=at(x),
        batch=batch,
        tokens=tokens,
        channels=channels,
        first=first.operand.args,
        second=second.operand.args,
        norm=norm_args(norm),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
