"""Fused cross-attention of a few latents to a long array, for CPU inference."""

import weakref

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad

from vitrail.fused.folding import NormAffine
from vitrail.fused.mlp import MLP_SEATS, FusedMLP, check_mlp, mlp_unsupported_reason
from vitrail.fused.unsupported import NotConverted, Seats, check_parts
from vitrail.grid import Grid
from vitrail.native.attention import attend_keys
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import ADD, linear, pack_linear
from vitrail.parts.attend import Attend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.latents import CrossLayer
from vitrail.shapes import Tokens

CROSS_SEATS: Seats = {
    "norm1": (nn.LayerNorm,),
    "norm_array": (nn.LayerNorm,),
    "norm2": (nn.LayerNorm,),
    "q": (nn.Linear,),
    "kv": (nn.Linear,),
    "attend": (Attend,),
    "proj": (nn.Linear,),
    "mlp": (MLP,),
}


class FusedCrossLayer(nn.Module):
    """`CrossLayer` with its norms folded into the projections; heads of odd width have a zero channel more.

    Keys and values of an array are kept as long as the array is: latents that read it several times with the same
    weights (`RereadingStage`) project it once.

    Args:
        layer: the cross-attention, whose parts are known.
        dtype: compute dtype.
    """

    def __init__(self, layer: CrossLayer, dtype: torch.dtype):
        super().__init__()
        self.heads, self.dtype = layer.num_heads, dtype
        width = layer.q.out_features // self.heads
        step = 2 if dtype == torch.bfloat16 else 1  # a product of bf16 has two inputs
        spare = -width % step
        first, array = (
            NormAffine.of(layer.norm1, layer.q.in_features),
            NormAffine.of(layer.norm_array, layer.kv.in_features),
        )
        assert first.eps is not None and array.eps is not None
        self.eps, self.array_eps, self.unused = first.eps, array.eps, -layer.kv.in_features % step

        def widened(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            """Add the zero channels to each head of a projection's outputs."""
            rows = pad(weight.unflatten(0, (-1, width)), (0, 0, 0, spare)).flatten(0, 1)
            return rows, pad(bias.unflatten(0, (-1, width)), (0, spare)).flatten()

        weight, bias = first.folded(layer.q)
        self.q = pack_linear(*widened(weight * width**-0.5, bias * width**-0.5), dtype)
        weight, bias = widened(*array.folded(layer.kv))
        self.kv = pack_linear(pad(weight, (0, self.unused)), bias, dtype)
        inputs = pad(layer.proj.weight.detach().float().unflatten(1, (-1, width)), (0, spare)).flatten(1)
        self.proj = pack_linear(inputs, layer.proj.bias, dtype)
        self.mlp = FusedMLP(layer.norm2, layer.mlp, nn.Identity(), dtype)
        self._known: tuple[weakref.ref[Tensor], Tensor] | None = None

    def forward(self, x: Tokens, array: Tensor) -> Tokens:
        """Read the array `(B, M, C)`."""
        x = as_residual(x, RESIDUAL[self.dtype])
        q = linear(x, self.q, norm_eps=self.eps, dtype=self.dtype)
        x = linear(attend_keys(q, self._keys_values(array), self.heads), self.proj, ADD, add=x)
        return self.mlp(x, Grid(1, x.shape[1]))

    def _keys_values(self, array: Tensor) -> Tensor:
        """Return keys and values `(B, M, 2 h d)` of an array, which is read several times if it is the last one."""
        known = self._known
        if known is not None and known[0]() is array:
            return known[1]
        found = self._project(array)
        self._known = weakref.ref(array, self._forget), found
        return found

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        if self._known is not None and self._known[0] is gone:
            self._known = None

    def _project(self, array: Tensor) -> Tensor:
        """Normalise in fp32, image by image: an array of all pixels is large; round once, and project."""
        width = array.shape[2]
        rows = torch.zeros(*array.shape[:2], width + self.unused, dtype=self.dtype)
        for image, to in zip(array, rows, strict=True):
            to[:, :width] = layer_norm(image.float(), (width,), eps=self.array_eps)
        return linear(rows, self.kv, dtype=self.dtype)


def fuse_cross_layer(layer: CrossLayer, dtype: torch.dtype) -> FusedCrossLayer:
    """Return the fused layer.

    Raises:
        NotConverted: a norm is over other channels, or the MLP is not one that fused code computes.
    """
    for norm, width in ((layer.norm1, layer.q.in_features), (layer.norm_array, layer.kv.in_features)):
        if norm.normalized_shape != (width,):
            raise NotConverted(f"a norm is over {norm.normalized_shape}, not over {width} channels")
    check_parts(layer.mlp, MLP_SEATS)
    reason = mlp_unsupported_reason(layer.mlp)
    if reason is not None:
        raise NotConverted(reason)
    check_mlp(layer.mlp, dtype)
    return FusedCrossLayer(layer, dtype)
