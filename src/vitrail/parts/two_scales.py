"""Two token streams at two scales, whose class tokens read each other's patches: the parts of CrossViT."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Features
from vitrail.parts.blocks import Block
from vitrail.parts.convolutions import channels_last, to_tokens
from vitrail.parts.regularisation import DropPath
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import Image, Tokens


class ThreeConvPatches(nn.Module):
    """Patches of 12 or 16 pixels by three convolutions with ReLU between them.

    "CrossViT", section 4.1 (the dagger models). The image is padded with zeros to a multiple of the patch.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        patch_size: 12 or 16.

    Raises:
        VitrailError: for any other patch size.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__()
        later = {12: [(3, 3, 0), (3, 1, 1)], 16: [(3, 2, 1), (3, 2, 1)]}  # kernel, stride, padding
        if patch_size not in later:
            raise VitrailError(f"Patches by three convolutions have 12 or 16 pixels, got {patch_size}.")
        self.patch_size, self.act = patch_size, nn.ReLU()
        widths, shapes = (in_channels, dim // 4, dim // 2, dim), [(7, 4, 3), *later[patch_size]]
        self.convs = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], *shapes[i]) for i in range(3))

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convolve."""
        y, x = images.shape[-2:]
        cells = channels_last(pad(images, (0, -x % self.patch_size, 0, -y % self.patch_size)))
        for i, conv in enumerate(self.convs):
            cells = conv(self.act(cells) if i else cells)
        return to_tokens(cells)


class TwoScaleEmbedding(nn.Module):
    """Embed the image, and the image resized to another scale: bicubic, without antialiasing.

    Args:
        fine: `images -> (x, grid)` with one prefix token, for the image as it is.
        coarse: the same for the resized image.
        scale: side of the resized image as a share of the side of the image.
    """

    def __init__(self, fine: nn.Module, coarse: nn.Module, scale: float):
        super().__init__()
        self.branches, self.scale = nn.ModuleList([fine, coarse]), Fraction(scale).limit_denominator(10**6)

    def forward(self, images: Image) -> tuple[Tensor, Tensor, Grid, Grid]:
        """Return the fine and the coarse tokens, and their grids."""
        part, whole = self.scale.as_integer_ratio()  # whole numbers, so that a program can leave the side open
        size = [max(side * part // whole, 1) for side in images.shape[-2:]]
        (x, fine), (y, coarse) = (
            branch(at)
            for branch, at in zip(self.branches, (images, interpolate(images, size=size, mode="bicubic")), strict=True)
        )
        return x, y, fine, coarse


class CrossFusion(nn.Module):
    """The class token of one scale reads the patches of the other.

    c = revert(p + drop(attend(norm([p, patches])))), p = project(class token)

    "CrossViT", equations 3 to 5: no MLP follows the attention; both projections are LayerNorm, GELU, linear.

    Args:
        dim: channels of the class token.
        other: channels of the patches that it reads.
        num_heads: heads of the attention.
        drop_path: probability of dropping the attention for one sample in training.
    """

    def __init__(self, dim: int, other: int, num_heads: int, drop_path: float):
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(dim, eps=1e-6), nn.GELU(), nn.Linear(dim, other))
        self.norm = nn.LayerNorm(other, eps=1e-6)
        self.token_mixer = ClassAttention(other, num_heads)
        self.drop_path = DropPath(drop_path)
        self.revert = nn.Sequential(nn.LayerNorm(other, eps=1e-6), nn.GELU(), nn.Linear(other, dim))

    def forward(self, x: Tokens, others: Tensor, grid: Grid) -> Tensor:
        """Return the tokens `x` with their class token updated from `others`, the tokens of `grid`."""
        projected = self.project(x[:, :1])
        read = self.norm(torch.cat([projected, others[:, 1:]], dim=1))
        updated = projected + self.drop_path(self.token_mixer(read, grid)[:, :1])
        return torch.cat([self.revert(updated), x[:, 1:]], dim=1)


class TwoScaleBlock(nn.Module):
    """Blocks on each scale, then both class tokens read the other scale.

    Args:
        fine: blocks on the fine tokens.
        coarse: blocks on the coarse tokens.
        fusions: those of the fine and of the coarse class token.
    """

    def __init__(self, fine: Iterable[Block], coarse: Iterable[Block], fusions: Sequence[CrossFusion]):
        super().__init__()
        self.branches = nn.ModuleList([nn.ModuleList(fine), nn.ModuleList(coarse)])
        self.fusions = nn.ModuleList(fusions)

    @property
    def token_mixer(self) -> SelfAttention:
        """Last attention between the fine patches, whose grid is that of the features."""
        return self.branches[0][-1].token_mixer  # pyright: ignore[reportIndexIssue, reportReturnType]

    def forward(self, x: Tensor, y: Tensor, fine: Grid, coarse: Grid) -> tuple[Tensor, Tensor]:
        """Run both branches and fuse them."""
        for block in self.branches[0]:  # pyright: ignore[reportGeneralTypeIssues]
            x = block(x, fine)
        for block in self.branches[1]:  # pyright: ignore[reportGeneralTypeIssues]
            y = block(y, coarse)
        return self.fusions[0](x, y, coarse), self.fusions[1](y, x, fine)


class TwoScaleBackbone(Backbone):
    """Backbone of two scales; a token of its features holds the channels of both.

    The fine tokens come first, then the coarse ones, brought to the fine grid by the nearest cell.

    Args:
        embedding: `images -> (x, y, fine, coarse)`, tokens and grids.
        blocks: each `(x, y, fine, coarse) -> (x, y)`.
        norm: of the joined tokens.
    """

    def __init__(self, embedding: TwoScaleEmbedding, blocks: Iterable[TwoScaleBlock], norm: nn.Module):
        super().__init__(embedding, [Stage(blocks)], norm)

    def forward(self, images: Image) -> Features:
        """Embed, run the blocks, join and normalise."""
        x, y, fine, coarse = self.embedding(images)
        for block in self.stages[0].blocks:  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
            x, y = block(x, y, fine, coarse)
        joined = join(x, y, fine, coarse)
        return Features(self.norm(joined), fine, (fine.cells(joined),))


class TwoScaleNorm(nn.Module):
    """A LayerNorm for the channels of each scale, which are side by side.

    Args:
        fine: channels C of the fine scale, which come first.
        coarse: channels C' of the coarse one.
    """

    def __init__(self, fine: int, coarse: int):
        super().__init__()
        self.dims = (fine, coarse)
        self.fine, self.coarse = nn.LayerNorm(fine, eps=1e-6), nn.LayerNorm(coarse, eps=1e-6)

    def forward(self, x: Tokens) -> Tokens:
        """Normalise both halves."""
        fine, coarse = x.split(self.dims, dim=-1)
        return torch.cat([self.fine(fine), self.coarse(coarse)], dim=-1)


def join(x: Tensor, y: Tensor, fine: Grid, coarse: Grid) -> Tensor:
    """Put the channels of both scales side by side, `(B, 1 + N, C + C')`, on the fine grid.

    Example:
        >>> join(torch.zeros(1, 17, 4), torch.zeros(1, 5, 8), Grid(4, 4, 1), Grid(2, 2, 1)).shape
        torch.Size([1, 17, 12])
    """
    cells = coarse.cells(y).permute(0, 3, 1, 2)  # (B, h', w', C') -> (B, C', h', w')
    cells = interpolate(cells, size=(fine.h, fine.w), mode="nearest").flatten(2).mT  # (B, N, C')
    return torch.cat([x, torch.cat([y[:, :1], cells], dim=1)], dim=2)


class TwoScaleHead(nn.Module):
    """One linear layer for the class token of each scale; the output is the mean of the logits.

    Args:
        fine: channels C of the fine class token.
        coarse: channels C' of the coarse one.
        num_classes: classes K; 0 leaves the layers out and returns both class tokens side by side.
    """

    def __init__(self, fine: int, coarse: int, num_classes: int):
        super().__init__()
        self.dims = (fine, coarse)
        self.linear = nn.Linear(fine, num_classes) if num_classes else nn.Identity()
        self.coarse = nn.Linear(coarse, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Features) -> Tensor:
        """Return the mean of both logits, `(B, K)`."""
        if isinstance(self.linear, nn.Identity):
            return features.tokens[:, 0]
        fine, coarse = features.tokens[:, 0].split(self.dims, dim=-1)
        return (self.linear(fine) + self.coarse(coarse)) / 2
