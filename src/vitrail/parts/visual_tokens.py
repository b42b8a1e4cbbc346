"""A few semantic tokens of a feature map: tokenizers, a Transformer on them, and a projector back to the map.

The tokens are the prefix of the grid: `(B, L + N, C)` with `prefix = L`, then the cells.
"""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.parts.backbone import Features
from vitrail.parts.regularisation import DropPath
from vitrail.shapes import Tokens


class FilterTokenizer(nn.Module):
    """Group the cells by learned filters: `T = softmax_N(X W_A)^T X`.

    "Visual Transformers: Token-based Image Representation and Processing for Computer Vision", section 3.1, equation 1.

    Args:
        dim: channels C.
        tokens: tokens L.
    """

    def __init__(self, dim: int, tokens: int):
        super().__init__()
        self.groups = nn.Linear(dim, tokens, bias=False)

    def forward(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Return `(B, L, C)` tokens of the cells; earlier tokens are not read."""
        return self.groups(cells).softmax(dim=1).mT @ cells


class RecurrentTokenizer(nn.Module):
    """Group the cells by filters that earlier tokens predict: `T = softmax_N(X (T_in W)^T)^T X`.

    "Visual Transformers", section 3.1, equation 2.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.filters = nn.Linear(dim, dim, bias=False)

    def forward(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Return `(B, L, C)` tokens of the cells."""
        return (cells @ self.filters(tokens).mT).softmax(dim=1).mT @ cells


class TokenStep(nn.Module):
    """Put the first visual tokens in front of the cells: `(x, grid) -> (x, grid)`.

    Args:
        tokenizer: `(cells, None) -> tokens`.
    """

    def __init__(self, tokenizer: FilterTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Make tokens; the grid must have no prefix."""
        tokens = self.tokenizer(x, x[:, :0])
        return torch.cat([tokens, x], dim=1), grid._replace(prefix=tokens.shape[1])


class KeepTokens(nn.Module):
    """Tokens of the block before, unchanged."""

    def forward(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Return the tokens."""
        return tokens


class VisualTokenAttention(nn.Module):
    """Attention among the tokens without a projection of values: `softmax_L(T W_Q (T W_K)^T / sqrt(d)) T`.

    "Visual Transformers", section 3.2, equation 3, which has no scale. The cells are not read.

    Args:
        dim: channels C; d = C / 2.
    """

    num_heads = 1

    def __init__(self, dim: int):
        super().__init__()
        self.q, self.k = nn.Linear(dim, dim // 2, bias=False), nn.Linear(dim, dim // 2, bias=False)
        self.attend = Attend()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Return the mixture of the `grid.prefix` first tokens."""
        tokens = x[:, : grid.prefix]
        return self.attend(self.q(tokens)[:, None], self.k(tokens)[:, None], tokens[:, None])[:, 0]

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each attention group: the visual tokens, in one group."""
        return torch.arange(grid.prefix)[None]


class Projector(nn.Module):
    """Add to each cell the tokens that it reads: `softmax_L(X W_Q (T W_K)^T / sqrt(C)) T`.

    "Visual Transformers", section 3.3, equation 5; the weights are block diagonal, as grouped convolutions are. With
    dense ones the queries alone, 196 cells x 1024^2, would cost more than the 0.13 G published for the whole stage.

    Args:
        dim: channels C, a multiple of the groups.
        groups: groups of channels (16 in the pseudo-code of the first version of the paper).
    """

    def __init__(self, dim: int, groups: int = 16):
        super().__init__()
        self.q, self.k = (nn.Conv1d(dim, dim, kernel_size=1, groups=groups, bias=False) for _ in range(2))
        self.attend = Attend()

    def forward(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Return the cells with the tokens' information."""
        q, k = self.q(cells.mT).mT, self.k(tokens.mT).mT  # (B, N, C), (B, L, C)
        return cells + self.attend(q[:, None], k[:, None], tokens[:, None])[:, 0]


class NoProjector(nn.Module):
    """Cells unchanged, after the last block of a classifier, which reads the tokens."""

    def forward(self, cells: Tokens, tokens: Tensor) -> Tensor:
        """Return the cells."""
        return cells


class VisualTransformerBlock(nn.Module):
    """Tokenize the cells, transform the tokens, project them back: `(x, grid) -> x`.

    T = tokenizer(X, T); T = T + attention(T); T = T + relu(T F_1) F_2; X = projector(X, T)

    "Visual Transformers", figure 2 and section 3.

    Args:
        dim: channels C.
        tokenizer: `(cells, tokens) -> tokens`.
        projector: `(cells, tokens) -> cells`.
        drop_path: probability of dropping a branch of the tokens of one sample in training.
    """

    def __init__(self, dim: int, tokenizer: nn.Module, projector: nn.Module, drop_path: float = 0.0):
        super().__init__()
        self.tokenizer, self.token_mixer, self.projector = tokenizer, VisualTokenAttention(dim), projector
        self.fc1, self.fc2 = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Update tokens and cells."""
        tokens, cells = x.split([grid.prefix, grid.tokens - grid.prefix], dim=1)
        tokens = self.tokenizer(cells, tokens)
        tokens = tokens + self.drop_path(self.token_mixer(tokens, grid))
        tokens = tokens + self.drop_path(self.fc2(self.fc1(tokens).relu()))
        return torch.cat([tokens, self.projector(cells, tokens)], dim=1)


class MeanPrefix(nn.Module):
    """Pool an image to the mean of its prefix tokens."""

    def forward(self, features: Features) -> Tensor:
        """Return the mean over the prefix, `(B, C)`."""
        return features.tokens[:, : features.grid.prefix].mean(dim=1)
