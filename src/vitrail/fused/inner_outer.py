"""Fused block of TNT, on words and on patches, for CPU inference."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vitrail.fused.blocks import fuse_block
from vitrail.fused.folding import NormAffine
from vitrail.fused.unsupported import NotConverted, check_parts, has_hooks, require_libraries
from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import linear, pack_linear
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.blocks import Block
from vitrail.parts.visual_words import InnerOuterBlock, SentenceProjection, WordNormProjection
from vitrail.shapes import Tokens


class FusedSentenceProjection(nn.Module):
    """`norm_2(W norm_1(concat_i word_i))`, the first norm folded into the projection."""

    def __init__(self, project: SentenceProjection, dtype: torch.dtype):
        super().__init__()
        check_parts(project, {"norm1": (nn.LayerNorm,), "proj": (nn.Linear,), "norm2": (nn.LayerNorm,)})
        affine = NormAffine.of(project.norm1, project.proj.in_features)
        if affine.eps is None or project.norm2.normalized_shape != (project.proj.out_features,):
            raise NotConverted("its norms are over other channels")
        _check_inputs(project.proj, dtype)
        self.eps, self.norm2 = affine.eps, LaneNorm.of(project.norm2)
        self.proj, self.residual = pack_linear(*affine.folded(project.proj), dtype), RESIDUAL[dtype]

    def forward(self, words: Tokens, patches: int) -> Tensor:
        """Turn `(B N, n, c)` words into `(B, N, C)` vectors of patches."""
        sentences = words.flatten(1).unflatten(0, (-1, patches))
        return layer_norm(linear(sentences, self.proj, norm_eps=self.eps, dtype=self.residual), self.norm2)


class FusedWordNormProjection(nn.Module):
    """`W concat_i norm(word_i) + b`."""

    def __init__(self, project: WordNormProjection, dtype: torch.dtype):
        super().__init__()
        check_parts(project, {"norm1": (nn.LayerNorm,), "proj": (nn.Linear,)})
        if len(project.norm1.normalized_shape) != 1:
            raise NotConverted("its norm is over other channels")
        _check_inputs(project.proj, dtype)
        self.norm1, self.dtype, self.residual = LaneNorm.of(project.norm1), dtype, RESIDUAL[dtype]
        self.proj = pack_linear(project.proj.weight, project.proj.bias, dtype)

    def forward(self, words: Tokens, patches: int) -> Tensor:
        """Turn `(B N, n, c)` words into `(B, N, C)` vectors of patches."""
        normed = layer_norm(words, self.norm1, self.dtype)
        return linear(normed.flatten(1).unflatten(0, (-1, patches)), self.proj, dtype=self.residual)


def _check_inputs(layer: nn.Linear, dtype: torch.dtype) -> None:
    """Check that a layer can be packed.

    Raises:
        NotConverted: an odd number of inputs in bf16.
    """
    if dtype == torch.bfloat16 and layer.in_features % 2:
        raise NotConverted(f"bf16 needs an even number of inputs, got {layer.in_features}")


PROJECTIONS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    SentenceProjection: FusedSentenceProjection,
    WordNormProjection: FusedWordNormProjection,
}
"""Fused form of a projection of exactly this type."""


class FusedInnerOuterBlock(nn.Module):
    """`InnerOuterBlock` on the residuals of both streams: `(words, x, grid) -> (words, x)`.

    Args:
        inner: fused block on the words.
        project: `(words, patches) -> tokens`.
        outer: fused block on the patch tokens.
    """

    def __init__(self, inner: nn.Module, project: nn.Module, outer: nn.Module):
        super().__init__()
        self.inner, self.project, self.outer = inner, project, outer

    def forward(self, words: Tokens, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Return the words and the patch tokens."""
        words, p = self.inner(words, Grid(1, words.shape[1])), grid.prefix
        y = empty(*x.shape, dtype=x.dtype)
        y[:, :p] = x[:, :p]
        torch.add(x[:, p:], self.project(words, grid.tokens - p), out=y[:, p:])
        return words, self.outer(y, grid)


def fuse_inner_outer_block(
    block: InnerOuterBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedInnerOuterBlock:
    """Return the fused block.

    Raises:
        NotConverted: the block has unknown parts, or its projection an odd number of inputs in bf16.
    """
    if block._modules.keys() != {"inner", "project", "outer"} or "forward" in vars(block):
        raise NotConverted(
            f"its parts are {', '.join(block._modules)}; other parts or a forward of its own are unknown"
        )
    kinds = type(block.inner), type(block.outer)
    if kinds != (Block, Block) or has_hooks(block.inner, block.outer):
        raise NotConverted(f"its inner and outer block are {kinds[0].__name__} and {kinds[1].__name__}, or have hooks")
    if type(block.project) not in PROJECTIONS:
        raise NotConverted(f"its project is {type(block.project).__name__}")
    require_libraries("layer_norm")
    project = PROJECTIONS[type(block.project)](block.project, dtype)
    inner, outer = (fuse_block(each, dtype, unconverted, targets) for each in (block.inner, block.outer))
    return FusedInnerOuterBlock(inner, project, outer)
