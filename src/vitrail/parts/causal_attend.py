"""Leaves of attention over sequences: dropout of attention probabilities, and the causal mask."""

from torch import Tensor
from torch.nn.functional import dropout

from vitrail.errors import VitrailError
from vitrail.kernels.attention.causal import causal_attention, causal_bias
from vitrail.kernels.attention.reference import attention_map
from vitrail.parts.attend import Attend, add_bias
from vitrail.shapes import Bias, Heads, Maps


class DropoutAttend(Attend):
    """Softmax attention that drops attention probabilities while training: `dropout(softmax(q k^T / sqrt(d) + b)) v`.

    "Attention Is All You Need" drops only residual branches; its code, BERT and GPT-2 also drop here.

    Args:
        rate: probability of dropping one attention weight of one head.

    Raises:
        VitrailError: if the rate is not in [0, 1).
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise VitrailError(f"The dropout rate must be at least 0 and below 1, got {rate}. Common: 0 to 0.3.")
        self.rate = rate

    def forward(self, q: Heads, k: Tensor, v: Tensor, bias: Bias | None = None) -> Tensor:
        """Mix the values of the keys that each query attends to."""
        if self.training and self.rate:
            return dropout(self.maps(q, k, bias), self.rate) @ v
        return self.fused(q, k, v, bias)

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Compute attention without dropout, by the fastest kernel."""
        return super().forward(q, k, v, bias)

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate}"


class CausalAttend(DropoutAttend):
    """Softmax attention in which no query sees a later key, aligned to the last key.

    Query i of N sees the keys j <= i + M - N of M: with a key-value cache the N new queries see all M - N cached keys.

    Example:
        >>> import torch
        >>> attend = CausalAttend()
        >>> attend.maps(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4), None)[0].tolist()
        [[0.5, 0.5, 0.0], [0.3333333432674408, 0.3333333432674408, 0.3333333432674408]]
    """

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Compute causal attention, without a mask in memory if there is no other bias."""
        if bias is None:
            return causal_attention(q, k, v)
        return super().fused(q, k, v, add_bias(bias, causal_bias(q, k)))

    def maps(self, q: Heads, k: Tensor, bias: Bias | None) -> Maps:
        """Compute the attention probabilities that `forward` mixes by."""
        return attention_map(q, k, add_bias(bias, causal_bias(q, k)))
