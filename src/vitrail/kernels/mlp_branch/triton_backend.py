"""The branch of an MLP on a GPU: norm, bias and GELU in Triton around PyTorch's products."""

from torch import Tensor
from torch.nn.functional import linear

from vitrail.kernels.branch import Linear, Norm, joined
from vitrail.kernels.gelu.triton_backend import bias_gelu
from vitrail.kernels.norm.triton_backend import add_norm
from vitrail.kernels.norm.triton_backend import refuses as norm_refuses
from vitrail.shapes import Tokens


def refuses(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> str | None:
    """Say why Triton cannot compute this branch."""
    return norm_refuses(x, None, *norm)


def transform(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> Tensor:
    """Compute the branch; the first bias's gradient is added up while GELU's is computed."""
    hidden = linear(add_norm(x, None, *norm)[1], first.weight)
    return joined(x, linear(bias_gelu(hidden, first.bias), *second), keep)
