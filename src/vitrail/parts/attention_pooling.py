"""Reading an image off its tokens by attention."""

import torch
from torch import Tensor, nn

from vitrail.parts.attend import Attend, check_heads, merge_heads
from vitrail.parts.backbone import Features


class AttentionPooling(nn.Module):
    """One learned query attends to all tokens, then a residual MLP.

    z = W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h; y = z + mlp(norm(z))

    "Scaling Vision Transformers", appendix A ("MAP head"), after "Set Transformer", section 3.2.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        mlp: `(x, grid) -> x` after the attention.

    Example:
        >>> from vitrail.grid import Grid
        >>> from vitrail.parts.channel_mixers import MLP
        >>> pool = AttentionPooling(8, num_heads=2, mlp=MLP(8, 16))
        >>> pool(Features(torch.zeros(3, 6, 8), Grid(2, 3), ())).shape
        torch.Size([3, 8])
    """

    def __init__(self, dim: int, num_heads: int, mlp: nn.Module):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.latent = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.latent, std=dim**-0.5)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)
        self.mlp_norm, self.mlp = nn.LayerNorm(dim, eps=1e-6), mlp

    def forward(self, features: Features) -> Tensor:
        """Return one vector an image, `(B, C)`."""
        x = features.tokens
        q = self.q(self.latent.to(x.dtype)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (1, h, 1, d)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).unbind(2)  # (B, N, h, d) each
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        pooled = self.proj(merge_heads(self.attend(q.expand(x.shape[0], -1, -1, -1), k, v)))  # (B, 1, C)
        return (pooled + self.mlp(self.mlp_norm(pooled), features.grid))[:, 0]
