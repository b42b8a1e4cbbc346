"""The branch of an MLP on a GPU: norm, bias and GELU in Triton around PyTorch's products."""

from torch import Tensor
from torch.nn.functional import linear

from vitrail.kernels.add_layer_norm.triton_backend import add_layer_norm
from vitrail.kernels.add_layer_norm.triton_backend import unsupported_reason as norm_unsupported_reason
from vitrail.kernels.fused_types import LinearWeights, NormWeights, residual_add
from vitrail.kernels.gelu.triton_backend import bias_gelu
from vitrail.shapes import Tokens


def unsupported_reason(
    x: Tokens, norm: NormWeights, first: LinearWeights, second: LinearWeights, drop_scale: Tensor | None
) -> str | None:
    """Return why Triton cannot compute this branch."""
    return norm_unsupported_reason(x, None, *norm)


def transform(
    x: Tokens, norm: NormWeights, first: LinearWeights, second: LinearWeights, drop_scale: Tensor | None
) -> Tensor:
    """Compute the branch; the first bias's gradient is added up while GELU's is computed."""
    hidden = linear(add_layer_norm(x, None, *norm)[1], first.weight)
    return residual_add(x, linear(bias_gelu(hidden, first.bias), *second), drop_scale)
