"""Reversible layers: activations are recomputed from the outputs in the backward pass, so none is stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from vitrail.layouts import Layout
from vitrail.parts.recomputation import autocast_as
from vitrail.shapes import Tokens


class ReversibleBlock(nn.Module):
    """Residual block in two streams: `y1 = x1 + f(x2); y2 = x2 + g(y1)`, and back `x2 = y2 - g(y1); x1 = y1 - f(x2)`.

    "The Reversible Residual Network" (2017), section 3.1; "Reformer", section 3.

    Args:
        norm1: before the token mixer.
        token_mixer: `(x, layout) -> x`.
        norm2: before the channel mixer.
        channel_mixer: `(x, layout) -> x`.
        scale1: after the token mixer, such as dropout.
        scale2: the same for the channel mixer.
    """

    def __init__(
        self,
        norm1: nn.Module,
        token_mixer: nn.Module,
        norm2: nn.Module,
        channel_mixer: nn.Module,
        scale1: nn.Module | None = None,
        scale2: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1, self.token_mixer, self.scale1 = norm1, token_mixer, scale1 or nn.Identity()
        self.norm2, self.channel_mixer, self.scale2 = norm2, channel_mixer, scale2 or nn.Identity()

    def f(self, x2: Tokens, grid: Layout) -> Tokens:
        """Return the addend of the first stream."""
        return self.scale1(self.token_mixer(self.norm1(x2), grid))

    def g(self, y1: Tokens, grid: Layout) -> Tokens:
        """Return the addend of the second stream."""
        return self.scale2(self.channel_mixer(self.norm2(y1), grid))

    def forward(self, x1: Tokens, x2: Tokens, grid: Layout) -> tuple[Tensor, Tensor]:
        """Return both streams."""
        y1 = x1 + self.f(x2, grid)
        return y1, x2 + self.g(y1, grid)

    def invert(self, y1: Tensor, y2: Tensor, grid: Layout) -> tuple[Tensor, Tensor]:
        """Return the inputs of the outputs, without dropout."""
        x2 = y2 - self.g(y1, grid)
        return y1 - self.f(x2, grid), x2


class ReversibleStack(nn.Module):
    """Reversible blocks on two copies of the tokens, whose mean is returned: memory does not grow with the depth.

    Gradients are those of stored activations, up to the rounding of the recomputed ones. Dropout is drawn again from
    the stored state of the random generators, 5 kB a branch.

    Args:
        blocks: the blocks.
    """

    def __init__(self, blocks: Sequence[ReversibleBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Run the blocks and average the streams."""
        y1, y2 = self.streams(x, grid)
        return (y1 + y2) / 2

    def streams(self, x: Tokens, grid: Layout) -> tuple[Tensor, Tensor]:
        """Run the blocks and return both streams."""
        if torch.is_grad_enabled():
            return _Reversible.apply(x, self.blocks, grid, *(p for p in self.parameters() if p.requires_grad))
        y1 = y2 = x
        for block in self.blocks:
            y1, y2 = block(y1, y2, grid)
        return y1, y2


class ReversibleStage(ReversibleStack):
    """A stage of reversible blocks: `(x, grid) -> (x, grid)`, both streams side by side in 2 C channels.

    "Reformer", section 3, in its code: the norm and the head after it read 2 C channels.
    """

    def forward(self, x: Tokens, grid: Layout) -> tuple[Tensor, Layout]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the blocks and concatenate the streams."""
        return torch.cat(self.streams(x, grid), dim=-1), grid


class _Replay:
    """Random state and autocast of a call, for the same call again in the backward pass."""

    def __init__(self, x: Tensor):
        kind, self.like = x.device.type, x.new_empty(0)
        enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        self.autocast = enabled, torch.get_autocast_dtype(kind) if enabled else None
        self.cpu, (self.devices, self.states) = torch.get_rng_state(), get_device_states(x)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute as the recorded call did, with gradients."""
        fork = torch.random.fork_rng(devices=self.devices)
        with fork, torch.enable_grad(), autocast_as(self.like, *self.autocast):
            torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states)
            yield


class _Reversible(torch.autograd.Function):
    """The forward pass of a stack without a graph, and a backward pass that inverts one block after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Any, grid: Any, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks; keep the outputs alone."""
        y1, y2, replays = x, x, []
        for block in blocks:
            replays.append(_Replay(x))
            y1 = y1 + block.f(y2, grid)
            replays.append(_Replay(x))
            y2 = y2 + block.g(y1, grid)
        ctx.blocks, ctx.grid, ctx.parameters, ctx.replays = blocks, grid, parameters, replays
        ctx.save_for_backward(y1.detach(), y2.detach())
        return y1, y2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g1: Tensor, g2: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the input and of every parameter."""
        y1, y2 = ctx.saved_tensors
        gradients = _Gradients(ctx.parameters)
        for block, first, second in reversed(list(zip(ctx.blocks, ctx.replays[::2], ctx.replays[1::2], strict=True))):
            out, more = gradients.branch(lambda x, block=block: block.g(x, ctx.grid), y1, g2, second)
            y2, g1 = y2 - out, g1 + more
            out, more = gradients.branch(lambda x, block=block: block.f(x, ctx.grid), y2, g1, first)
            y1, g2 = y1 - out, g2 + more
        return g1 + g2, None, None, *(gradients.found.get(id(p)) for p in ctx.parameters)


class _Gradients:
    """Gradients of parameters, summed over the branches that use them."""

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters, self.found = parameters, dict[int, Tensor]()

    def branch(
        self, run: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor, replay: _Replay
    ) -> tuple[Tensor, Tensor]:
        """Compute a branch again; return its output and the gradient of its input."""
        x = x.detach().requires_grad_()
        with replay():
            out = run(x)
        own, *more = torch.autograd.grad(out, [x, *self.parameters], grad.to(out.dtype), allow_unused=True)
        for parameter, new in zip(self.parameters, more, strict=True):
            if new is not None:
                known = self.found.get(id(parameter))
                self.found[id(parameter)] = new if known is None else known + new
        return out.detach(), torch.zeros_like(x) if own is None else own
