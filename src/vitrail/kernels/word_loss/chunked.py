"""Cross entropy of words in chunks of tokens: scores live in the cache, and no `(N, V)` tensor is kept.

The gradient is computed together with the loss, since it is a sum: dz = p - (1 - s) onehot - s / V, dx = dz E,
dE = dz^T x. So the scores are computed once, and the backward pass only multiplies by the incoming gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from vitrail.kernels.tracing import is_tracing
from vitrail.kernels.word_loss.reference import WordLoss

CHUNK = 2**21  # scores in a chunk: 8 MB in fp32


def word_loss(
    x: Tensor, table: Tensor, targets: Tensor, smoothing: float = 0.0, bias: Tensor | None = None
) -> WordLoss:
    """Return the cross entropy of each token's word, summed; see `reference.py`."""
    return WordLoss(*_WordLoss.apply(x, table, targets, smoothing, bias))


def unsupported_reason(
    x: Tensor, table: Tensor, targets: Tensor, smoothing: float = 0.0, bias: Tensor | None = None
) -> str | None:
    """Return why the loss cannot be computed in chunks."""
    return "not traceable: torch.compile, export or a functorch transform is active" if is_tracing(x, table) else None


class _WordLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, targets: Tensor, smoothing: float, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        wanted = [torch.zeros_like(t) if t is not None and t.requires_grad else None for t in (x, table, bias)]
        loss, nll = x.new_zeros((), dtype=torch.float32), x.new_zeros((), dtype=torch.float32)
        size = max(CHUNK // len(table), 1)
        with torch.autocast(device, enabled=False):
            words = table.to(dtype)
            for start in range(0, len(x), size):
                part, right = x[start : start + size].to(dtype), targets[start : start + size, None]
                logits = linear(part, words).float()
                logits = logits if bias is None else logits.add_(bias)
                mean = logits.mean(dim=1)
                norm = logits.logsumexp(dim=1)
                each = norm - logits.gather(1, right)[:, 0]
                nll += each.sum()
                loss += (1 - smoothing) * each.sum() + smoothing * (norm - mean).sum()
                if any(grad is not None for grad in wanted):
                    _add_gradients(wanted, start, logits, norm, right, part, words, smoothing)
        ctx.save_for_backward(*wanted)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dx, dtable, dbias = (None if grad is None else grad * grads[0] for grad in ctx.saved_tensors)
        return dx, dtable, None, None, dbias


def _add_gradients(
    wanted: list[Tensor | None],
    start: int,
    logits: Tensor,
    norm: Tensor,
    right: Tensor,
    x: Tensor,
    table: Tensor,
    smoothing: float,
) -> None:
    """Add the gradients of a chunk; the logits are overwritten with their own."""
    dz = logits.sub_(norm[:, None]).exp_().sub_(smoothing / len(table))
    dz.scatter_add_(1, right, dz.new_full(right.shape, smoothing - 1))
    dx, dtable, dbias = wanted
    if dbias is not None:
        dbias += dz.sum(dim=0)
    dz = dz.to(x.dtype)
    if dx is not None:
        dx[start : start + len(x)] = dz @ table
    if dtable is not None:
        dtable += dz.T @ x
