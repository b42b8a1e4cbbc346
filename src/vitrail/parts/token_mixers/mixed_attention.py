"""Half attention, half convolution whose kernels depend on the span around each token (ConvBERT)."""

from torch import Tensor, cat, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.layouts import Layout
from vitrail.parts.attend import Attend, merge_heads
from vitrail.parts.token_mixers.linformer import zero_padding
from vitrail.shapes import Tokens


class SpanConvolution(nn.Module):
    """Depthwise, then pointwise convolution along the text: features of a span of k tokens, `(B, N, C) -> (B, N, out)`.

    Args:
        dim: channels C.
        out: channels of the result.
        kernel_size: odd length k of the span.
    """

    def __init__(self, dim: int, out: int, kernel_size: int):
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=False)
        self.pointwise = nn.Linear(dim, out)

    def forward(self, x: Tokens) -> Tensor:
        """Convolve; beyond the text there are zeros."""
        return self.pointwise(self.depthwise(x.transpose(1, 2)).transpose(1, 2))  # (B, N, C) -> (B, C, N) and back


class MixedAttention(nn.Module):
    """Span-based dynamic convolution and self-attention in parallel, each on half of the channels.

    conv_i = sum_j softmax(W (q_i * s_i))_j v_{i+j-k//2}, s the span convolution of x; y = W_o [attention, conv]

    "ConvBERT: Improving BERT with Span-based Dynamic Convolution", section 4. Time grows with N k for that half. Exact
    for its formula; padded tokens are zeros to the convolutions, as are places outside the text (transformers reads
    padding there, so its outputs depend on it).

    Args:
        dim: channels C.
        num_heads: heads before halving.
        head_ratio: heads are divided by it; 2 in the paper.
        kernel_size: odd length k of the kernels.
        attend: leaf that computes the attention.

    Raises:
        VitrailError: if heads and channels do not fit together, or the kernel is even.
    """

    def __init__(
        self, dim: int, num_heads: int, head_ratio: int = 2, kernel_size: int = 9, attend: Attend | None = None
    ):
        super().__init__()
        self.num_heads, self.kernel_size = max(1, num_heads // head_ratio), kernel_size
        if dim % (2 * self.num_heads) or not kernel_size % 2:
            raise VitrailError(
                f"{dim} channels must divide into {2 * self.num_heads} halves of heads, and the kernel must be odd,"
                f" got {kernel_size}."
            )
        half = dim // 2
        self.qkv = nn.Linear(dim, 3 * half)
        self.span = SpanConvolution(dim, half, kernel_size)
        self.kernel = nn.Linear(half, self.num_heads * kernel_size)
        self.conv_v = nn.Linear(dim, half)
        self.attend = attend or Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens both ways and join the halves."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
        attended = merge_heads(self.attend(*heads, grid.key_padding(q)))
        real = zero_padding(x[:, None], grid)[:, 0]
        kernels = self.kernel(self.span(real) * q).unflatten(-1, (self.num_heads, self.kernel_size)).softmax(dim=-1)
        values = zero_padding(self.conv_v(x)[:, None], grid)[:, 0]
        around = pad(values, (0, 0, self.kernel_size // 2, self.kernel_size // 2))
        around = around.unfold(1, self.kernel_size, 1).unflatten(2, (self.num_heads, -1))  # (B, N, h, d, k)
        mixed = (around @ kernels[..., None])[..., 0].flatten(-2)  # (B, N, h, d, k) (B, N, h, k, 1) -> (B, N, hd)
        return self.proj(cat([attended, mixed], dim=-1))
