"""Linear layers with weights of eight or four bits; activations are not quantized.

Weights are buffers, so they are saved as they are packed, and training leaves them alone.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vitrail.kernels.kmeans import kmeans
from vitrail.kernels.lookup_linear import lookup_linear
from vitrail.kernels.lookup_linear.reference import BLOCK, ROWS, lookup_dense, pack_codes

GROUP = 64
"""Columns that share a scale in `Int4Linear`."""
LEVELS = 16

ScaleRule = Callable[[Tensor, int, Tensor | None], Tensor]
"""From groups `(..., n)` of weights, the largest code and the importance of errors to a scale for each group."""


class QuantizedLinear(nn.Module):
    """Base: `y = W x + b` with W decoded from its buffers.

    Attributes:
        name: of the format, in edits and on the command line.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        bias: whether there is a bias b.
    """

    name: ClassVar[str]

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @property
    def weight(self) -> Tensor:
        """The decoded matrix `(out, in)` in fp32; changing it changes nothing."""
        raise NotImplementedError

    def encode(self, weight: Tensor, scales: ScaleRule, moments: Tensor | None = None) -> None:
        """Fill the buffers with a matrix.

        Args:
            weight: `(out, in)`.
            scales: rule for the scales of groups.
            moments: mean squares of the inputs, `(in,)`, which weigh errors; None weighs all alike.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Decode the weights and apply the layer."""
        return linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Int8Linear(QuantizedLinear):
    """Weights of eight bits, symmetric, with a scale for each output channel.

    W[r, c] = s_r q[r, c], q in -127..127

    Example:
        >>> layer = Int8Linear(4, 2)
        >>> layer.encode(torch.tensor([[1.0, -0.5, 0.0, 0.25], [4.0, 4.0, 4.0, 4.0]]), absmax)
        >>> layer.codes[0].tolist()
        [127, -64, 0, 32]
    """

    name = "int8"
    codes: Tensor
    scales: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.register_buffer("codes", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(out_features, 1))

    @property
    def weight(self) -> Tensor:
        """The decoded matrix."""
        return self.codes * self.scales.float()

    def encode(self, weight: Tensor, scales: ScaleRule, moments: Tensor | None = None) -> None:
        """Round to the nearest codes."""
        self.scales.copy_(scales(weight.detach().float(), 127, moments))
        self.codes.copy_(_codes(weight.detach().float(), self.scales, 127))


class LookupLinear(QuantizedLinear):
    """Base: weights of four bits, codes into tables of 16 values.

    W[r, c] = s[r, c // columns] table[r // 64][q[r, c]]
    """

    columns: int
    codes: Tensor
    scales: Tensor
    tables: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        blocks = -(-in_features // BLOCK)
        self.register_buffer("codes", torch.zeros(out_features, blocks * BLOCK // 2, dtype=torch.uint8))

    @property
    def weight(self) -> Tensor:
        """The decoded matrix."""
        return lookup_dense(self.codes, self.tables, self.scales, self.columns)[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        """Look the weights up and apply the layer."""
        y = lookup_linear(x, self.codes, self.tables, self.scales, self.columns)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Int4Linear(LookupLinear):
    """Weights of four bits, symmetric, with a scale for each 64 inputs of each output channel: 4.25 bits a weight.

    W[r, c] = s[r, c // 64] (q[r, c] - 8), q in 0..15

    Scales are stored in bf16, and codes are chosen for the stored scale.

    Example:
        >>> layer = Int4Linear(4, 1)
        >>> layer.encode(torch.tensor([[7.0, -7.0, 0.0, 3.2]]), absmax)
        >>> layer.weight.tolist()
        [[7.0, -7.0, 0.0, 3.0]]
    """

    name = "int4"
    columns = GROUP

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.register_buffer("scales", torch.zeros(out_features, -(-in_features // GROUP), dtype=torch.bfloat16))
        self.register_buffer("tables", torch.arange(-8.0, 8.0)[None], persistent=False)

    def encode(self, weight: Tensor, scales: ScaleRule, moments: Tensor | None = None) -> None:
        """Round to the nearest codes."""
        groups = _in_groups(weight.detach().float())
        self.scales.copy_(scales(groups, 7, None if moments is None else _in_groups(moments.float()))[..., 0])
        codes = _codes(groups, self.scales.float()[..., None], 7, lowest=-8)
        self.codes.copy_(pack_codes(codes.flatten(1)[:, : self.in_features] + 8))


class CodebookLinear(LookupLinear):
    """Weights of four bits: the 16 values of each 64 output channels are the optimum of k-means.

    W[r, c] = s_r table[r // 64][q[r, c]]

    The tables minimise sum of m_c (W[r, c] - s_r table[q])^2 over tables and codes, with s_r the root mean square of
    the row and m_c the mean square of input c. One-dimensional k-means has an exact solution (`kernels/kmeans`), so
    there are no seeds and no iterations. A table for each 64 weights would take as many bytes as their codes.

    Example:
        >>> layer = CodebookLinear(4, 1)
        >>> layer.encode(torch.tensor([[0.1, -3.0, 0.1, 2.0]]), absmax)
        >>> torch.allclose(layer.weight, torch.tensor([[0.1, -3.0, 0.1, 2.0]]))
        True
    """

    name = "codebook"

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.columns = -(-in_features // BLOCK) * BLOCK  # one scale a row
        self.register_buffer("scales", torch.zeros(out_features, 1))
        self.register_buffer("tables", torch.zeros(-(-out_features // ROWS), LEVELS))

    def encode(self, weight: Tensor, scales: ScaleRule, moments: Tensor | None = None) -> None:
        """Cluster the weights of each 64 rows, and choose the nearest center for each."""
        weight = weight.detach().float()
        self.scales.copy_(weight.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30))
        unit = weight / self.scales
        heavy = self.scales.square() * (torch.ones(weight.shape[1]) if moments is None else moments).to(weight)
        tables = list(zip(unit.split(ROWS), heavy.split(ROWS), strict=True))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = pool.map(lambda one: kmeans(one[0].flatten(), one[1].flatten(), LEVELS), tables)
            for index, centers in enumerate(found):
                self.tables[index].copy_(centers)
        centers = self.tables.repeat_interleave(ROWS, 0)[: len(unit)]
        middles = ((centers[:, 1:] + centers[:, :-1]) / 2).contiguous()
        self.codes.copy_(pack_codes(torch.searchsorted(middles, unit.contiguous())))


FORMATS: Mapping[str, type[QuantizedLinear]] = {kind.name: kind for kind in (Int8Linear, Int4Linear, CodebookLinear)}
"""Formats of weights by name."""


def absmax(groups: Tensor, largest: int, importance: Tensor | None = None) -> Tensor:
    """Return the scale that gives the largest weight of each group the largest code.

    Example:
        >>> absmax(torch.tensor([[1.0, -14.0]]), 7)
        tensor([[2.]])
    """
    return groups.abs().amax(-1, keepdim=True) / largest


def least_squares(groups: Tensor, largest: int, importance: Tensor | None = None) -> Tensor:
    """Return the scale of least squared error of each group: of those that clip up to half of its range.

    Args:
        groups: `(..., n)`.
        largest: largest code.
        importance: factor of each squared error, broadcast to the groups; None weighs all alike.

    Example:
        >>> float(least_squares(torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.6]]), 1)) < 1.6
        True
    """
    whole = absmax(groups, largest)
    best, least = whole, torch.full_like(whole, torch.inf)
    for step in range(21):
        scale = whole * (1 - step / 40)
        squares = (groups - scale * _codes(groups, scale, largest)).square()
        error = (squares if importance is None else squares * importance).sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def quantized(layer: nn.Linear, kind: type[QuantizedLinear]) -> QuantizedLinear:
    """Return an empty quantized layer with the shape and the bias of a layer, which is not copied."""
    with torch.device(layer.weight.device):
        new = kind(layer.in_features, layer.out_features, bias=layer.bias is not None)
    new.bias = layer.bias
    return new.train(layer.training)


def dense(layer: QuantizedLinear) -> nn.Linear:
    """Return a plain linear layer with the decoded weights and a copy of the bias.

    Example:
        >>> layer = Int8Linear(4, 2)
        >>> torch.equal(dense(layer).weight, layer.weight)
        True
    """
    with torch.device("meta"):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
    return plain.train(layer.training)


def stored_weights(model: nn.Module) -> int:
    """Return the number of weights that quantized layers of a model hold in buffers.

    Example:
        >>> stored_weights(nn.Linear(2, 2))
        0
    """
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    return sum(layer.in_features * layer.out_features for layer in layers)


def _in_groups(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))


def _codes(groups: Tensor, scales: Tensor, largest: int, lowest: int | None = None) -> Tensor:
    """Return the nearest whole multiples of the scales."""
    safe = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (groups / safe).round().clamp(-largest if lowest is None else lowest, largest)
