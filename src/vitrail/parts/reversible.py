"""Reversible layers: activations are recomputed from the outputs in the backward pass, so none is stored."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitrail.layouts import Layout
from vitrail.shapes import Tokens


class ReversibleBlock(nn.Module):
    """Residual block in two streams: `y1 = x1 + f(x2); y2 = x2 + g(y1)`, and back `x2 = y2 - g(y1); x1 = y1 - f(x2)`.

    "The Reversible Residual Network" (2017), section 3.1; "Reformer", section 3.

    Args:
        norm1: before the token mixer.
        token_mixer: `(x, layout) -> x`, without dropout.
        norm2: before the channel mixer.
        channel_mixer: `(x, layout) -> x`, without dropout.
    """

    def __init__(self, norm1: nn.Module, token_mixer: nn.Module, norm2: nn.Module, channel_mixer: nn.Module):
        super().__init__()
        self.norm1, self.token_mixer, self.norm2, self.channel_mixer = norm1, token_mixer, norm2, channel_mixer

    def forward(self, x1: Tokens, x2: Tokens, grid: Layout) -> tuple[Tensor, Tensor]:
        """Return both streams."""
        y1 = x1 + self.token_mixer(self.norm1(x2), grid)
        return y1, x2 + self.channel_mixer(self.norm2(y1), grid)

    def invert(self, y1: Tensor, y2: Tensor, grid: Layout) -> tuple[Tensor, Tensor]:
        """Return the inputs of the outputs."""
        x2 = y2 - self.channel_mixer(self.norm2(y1), grid)
        return y1 - self.token_mixer(self.norm1(x2), grid), x2


class ReversibleStack(nn.Module):
    """Reversible blocks on two copies of the tokens, whose mean is returned: memory does not grow with the depth.

    Gradients are those of stored activations, up to the rounding of the recomputed ones.

    Args:
        blocks: the blocks.
    """

    def __init__(self, blocks: list[ReversibleBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Run the blocks and average the streams."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        y1, y2 = _Reversible.apply(x, self.blocks, grid, *parameters)
        return (y1 + y2) / 2


class _Reversible(torch.autograd.Function):
    """The forward pass of a stack without a graph, and a backward pass that inverts one block after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Any, grid: Any, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks; keep the outputs alone."""
        y1 = y2 = x
        for block in blocks:
            y1, y2 = block(y1, y2, grid)
        ctx.blocks, ctx.grid, ctx.parameters = blocks, grid, parameters
        ctx.save_for_backward(y1.detach(), y2.detach())
        return y1, y2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g1: Tensor, g2: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the input and of every parameter."""
        y1, y2 = ctx.saved_tensors
        found: dict[int, Tensor] = {}
        for block in reversed(ctx.blocks):
            x1, x2 = (x.detach().requires_grad_() for x in block.invert(y1, y2, ctx.grid))
            own = [p for p in block.parameters() if p.requires_grad]
            with torch.enable_grad():
                out = block(x1, x2, ctx.grid)
            g1, g2, *more = torch.autograd.grad(out, [x1, x2, *own], [g1, g2], allow_unused=True)
            for parameter, grad in zip(own, more, strict=True):
                if grad is not None:
                    found[id(parameter)] = found[id(parameter)] + grad if id(parameter) in found else grad
            y1, y2 = x1.detach(), x2.detach()
        return g1 + g2, None, None, *(found.get(id(p)) for p in ctx.parameters)
