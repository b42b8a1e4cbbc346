"""Patches as sentences of smaller patches, their words: the second token stream of a TNT."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.blocks import Block
from vitrail.parts.convolutions import channels_last
from vitrail.parts.embeddings import TokenSteps
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import Image, Tokens


class WordEmbedding(nn.Module):
    """Cut an image into patches, then each patch into words by a strided convolution that sees this patch alone.

    "Transformer in Transformer", section 3.1. The image is padded with zeros to a multiple of the patch.

    Args:
        in_channels: channels of the image.
        dim: channels c of a word.
        patch_size: side p of a patch in pixels.
        stride: side of a word in pixels.

    Example:
        >>> words, grid = WordEmbedding(3, 24, patch_size=16)(torch.zeros(2, 3, 30, 64))
        >>> words.shape, grid
        (torch.Size([16, 16, 24]), Grid(h=2, w=4, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, stride: int = 4):
        super().__init__()
        self.patch_size, self.side = patch_size, -(-patch_size // stride)
        self.conv = nn.Conv2d(in_channels, dim, kernel_size=7, stride=stride, padding=3)
        self.position = nn.Parameter(torch.empty(1, self.side**2, dim))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Return words `(B N, n, c)`, those of one patch together, and the grid of patches."""
        y, x = images.shape[-2:]
        images = pad(images, (0, -x % self.patch_size, 0, -y % self.patch_size))
        cells = self.cells(images)  # (B, h, n_y, w, n_x, c)
        grid = Grid(cells.shape[1], cells.shape[3])
        words = cells.transpose(2, 3).flatten(3, 4).flatten(0, 2)  # -> (B h w, n, c)
        return words + self.position, grid

    def cells(self, images: Image) -> Tensor:
        """Convolve patch by patch: `(B, h, n_y, w, n_x, c)`."""
        p = self.patch_size
        patches = images.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, p, p)
        b, h, w = patches.shape[:3]
        cells = self.conv(channels_last(patches.flatten(0, 2)))  # (B h w, c, n_y, n_x)
        return cells.unflatten(0, (b, h, w)).permute(0, 1, 4, 2, 5, 3)


class SharedWordEmbedding(WordEmbedding):
    """Convolve the whole image, then cut patches: words see 3 pixels of the patch above or left.

    The convolution of timm's `tnt_s_legacy_patch16_224`.
    """

    def cells(self, images: Image) -> Tensor:
        """Convolve the image: `(B, h, n_y, w, n_x, c)`."""
        cells = self.conv(channels_last(images)).permute(0, 2, 3, 1)  # (B, h n_y, w n_x, c)
        return cells.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))


class SentenceProjection(nn.Module):
    """Project the words of each patch to one vector: `norm_2(W norm_1(concat_i word_i))`.

    "Transformer in Transformer", equation 5; the norms are the authors' code's.

    Args:
        words: words n of a patch.
        dim: channels c of a word.
        out_dim: channels C of a patch token.
        bias: whether the projection has a bias (the stem's has, those of the blocks have none).
    """

    def __init__(self, words: int, dim: int, out_dim: int, bias: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(words * dim)
        self.proj = nn.Linear(words * dim, out_dim, bias=bias)
        self.norm2 = nn.LayerNorm(out_dim)

    def forward(self, words: Tokens, patches: int) -> Tensor:
        """Turn `(B N, n, c)` words into `(B, N, C)` vectors of patches."""
        return self.norm2(self.proj(self.norm1(words.flatten(1).unflatten(0, (-1, patches)))))


class WordNormProjection(nn.Module):
    """The same with one norm, over the channels of each word: `W concat_i norm(word_i) + b`.

    The projection in the blocks of timm's `tnt_s_legacy_patch16_224`.

    Args:
        words: words n of a patch.
        dim: channels c of a word.
        out_dim: channels C of a patch token.
    """

    def __init__(self, words: int, dim: int, out_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.proj = nn.Linear(words * dim, out_dim)

    def forward(self, words: Tokens, patches: int) -> Tensor:
        """Turn `(B N, n, c)` words into `(B, N, C)` vectors of patches."""
        return self.proj(self.norm1(words).flatten(1).unflatten(0, (-1, patches)))


class SentenceEmbedding(nn.Module):
    """Embedding of both streams: words, and one token for each patch made of them.

    Args:
        patches: `images -> (words, grid)`.
        project: `(words, patches) -> tokens`.
        steps: each `(x, grid) -> (x, grid)` on the patch tokens: class token, positions.
    """

    def __init__(self, patches: WordEmbedding, project: nn.Module, steps: Sequence[nn.Module]):
        super().__init__()
        self.patches, self.project, self.steps = patches, project, TokenSteps(steps)

    def forward(self, images: Image) -> tuple[Tensor, Tensor, Grid]:
        """Return words `(B N, n, c)`, tokens `(B, N + prefix, C)` and their grid."""
        words, grid = self.patches(images)
        return words, *self.steps(self.project(words, grid.tokens), grid)


class InnerOuterBlock(nn.Module):
    """A Transformer block on the words of each patch, whose result is added to the patch tokens, then one on these.

    w = inner(w); x = outer(x + project(w)), the prefix of x without an addend

    "Transformer in Transformer", equations 3 to 8.

    Args:
        inner: block on the words `(B N, n, c)`.
        project: `(words, patches) -> tokens`.
        outer: block on the patch tokens.
    """

    def __init__(self, inner: Block, project: nn.Module, outer: Block):
        super().__init__()
        self.inner, self.project, self.outer = inner, project, outer

    @property
    def token_mixer(self) -> SelfAttention:
        """Attention between patches."""
        return self.outer.token_mixer  # pyright: ignore[reportReturnType]

    def forward(self, words: Tokens, x: Tensor, grid: Layout) -> tuple[Tensor, Tensor]:
        """Return the words and the patch tokens."""
        words = self.inner(words, Grid(1, words.shape[1]))
        prefix, cells = x.split([grid.prefix, grid.tokens - grid.prefix], dim=1)
        cells = cells + self.project(words, cells.shape[1])
        return words, self.outer(torch.cat([prefix, cells], dim=1), grid)
