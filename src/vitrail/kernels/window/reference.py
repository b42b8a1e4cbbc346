"""Window attention as the paper writes it: cut the map into windows, attend in each, put the windows together again."""

import torch
from torch import Tensor

from vitrail.kernels.attention.reference import attend as global_attention
from vitrail.shapes import Tokens


def attend(
    qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Tensor:
    """Attend within groups of tokens: `(B, N, C)`.

    y = softmax(q k^T / sqrt(d) + bias) v, for each head of each group

    Swin Transformer, section 3.2. Tokens are not moved: shift, partition and reverse are one table of
    indices. Gradients flow to `qkv`, `padding` and `bias`.

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token side by side, each of them head by head.
        padding: `(3 C,)`, queries, keys and values of padding: the bias of the projection.
            None is zeros.
        bias: `(K, h or 1, n, n)`, addends to the scores of which each group has one, query first; `-inf` forbids a
            pair, but every query needs one that is allowed. It may be of another precision than `qkv`. None adds
            nothing.
        mask_index: integers `(G,)`, which of the K addends a group has.
        token_index: integers `(G, n)`, which token sits in each place of each group; -1 is padding. Each token sits in
            exactly one place, so there are `G n - N` places of padding.
        heads: number of heads h; `C = h d`.

    Example:
        >>> qkv = torch.randn(1, 4, 3 * 8)
        >>> by_itself = torch.arange(4)[:, None]
        >>> mixed = attend(qkv, None, None, torch.zeros(4, dtype=torch.long), by_itself, heads=2)
        >>> bool((mixed == qkv[..., 16:]).all())  # a token alone in its group keeps its value
        True
    """
    q, k, v = cut(qkv, padding, token_index, heads)
    addend = None if bias is None else bias.to(qkv.dtype)[mask_index]
    return join(global_attention(q, k, v, addend), token_index, qkv.shape[1])


def cut(qkv: Tokens, padding: Tensor | None, token_index: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give each group its queries, keys and values, each `(B, G, h, n, d)`."""
    last = qkv.new_zeros(qkv.shape[2]) if padding is None else padding.to(qkv.dtype)
    everyone = torch.cat([qkv, last.expand(qkv.shape[0], 1, -1)], dim=1)  # (B, N + 1, 3C), so -1 is padding
    parts = everyone[:, token_index].unflatten(-1, (3, heads, -1))  # (B, G, n, 3, h, d)
    q, k, v = parts.permute(3, 0, 1, 4, 2, 5)
    return q, k, v


def join(mixed: Tensor, token_index: Tensor, tokens: int) -> Tensor:
    """Bring the tokens of `(B, G, h, n, d)` back into their order, `(B, N, C)`."""
    return (
        mixed.transpose(2, 3).flatten(3).flatten(1, 2)[:, places(token_index, tokens)]
    )  # -> (B, Gn, hd) -> (B, N, hd)


def places(token_index: Tensor, tokens: int) -> Tensor:
    """Return the place of each token among all groups, `(N,)`: the inverse of `token_index`.

    Example:
        >>> places(torch.tensor([[2, 0], [1, -1]]), tokens=3).tolist()
        [1, 2, 0]
    """
    found = token_index.new_empty(tokens + 1)
    found[token_index.flatten()] = torch.arange(token_index.numel(), device=token_index.device)
    return found[:tokens]  # the last one is padding
