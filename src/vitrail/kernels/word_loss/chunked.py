"""Cross entropy of words in chunks of tokens: scores live in the cache, and no `(N, V)` tensor is kept.

Gradients of scores are kept for groups of chunks: the gradient of the table is read and written once for each group.

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
GROUP = 2**24  # gradients of scores that are kept for one product with the tokens: 32 MB in bf16


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
        dx, dbias = (torch.zeros_like(t) if t is not None and t.requires_grad else None for t in (x, bias))
        dtable: Tensor | None = None
        loss, nll = x.new_zeros((), dtype=torch.float32), x.new_zeros((), dtype=torch.float32)
        learns = any(t is not None and t.requires_grad for t in (x, table, bias))
        size = max(CHUNK // len(table), 1)
        rows = size * max(GROUP // (size * len(table)), 1)
        with torch.autocast(device, enabled=False):
            words = table.to(dtype)
            for first in range(0, len(x), rows):
                part, right = x[first : first + rows].to(dtype), targets[first : first + rows, None]
                dz = part.new_empty(len(part), len(table)) if learns else None
                for start in range(0, len(part), size):
                    piece = slice(start, start + size)
                    logits = linear(part[piece], words).float()
                    logits = logits if bias is None else logits.add_(bias)
                    mean = logits.mean(dim=1)
                    norm = logits.logsumexp(dim=1)
                    each = norm - logits.gather(1, right[piece])[:, 0]
                    nll += each.sum()
                    loss += (1 - smoothing) * each.sum() + smoothing * (norm - mean).sum()
                    if dz is not None:
                        dz[piece] = _score_gradient(logits, norm, right[piece], smoothing, dbias)
                if dz is not None and dx is not None:
                    dx[first : first + rows] = dz @ words
                if dz is not None and table.requires_grad:
                    new = (dz.T @ part).to(table.dtype)
                    dtable = new if dtable is None else dtable.add_(new)
        if dtable is None and table.requires_grad:  # no tokens
            dtable = torch.zeros_like(table)
        ctx.save_for_backward(dx, dtable, dbias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # In-place: a second backward pass through the same graph raises an error.
        dx, dtable, dbias = (None if grad is None else grad.mul_(grads[0]) for grad in ctx.saved_tensors)
        return dx, dtable, None, None, dbias


def _score_gradient(logits: Tensor, norm: Tensor, right: Tensor, smoothing: float, dbias: Tensor | None) -> Tensor:
    """Return the gradient of the scores of a chunk, which overwrites them; add that of the bias."""
    dz = logits.sub_(norm[:, None]).exp_().sub_(smoothing / logits.shape[1])
    dz.scatter_add_(1, right, dz.new_full(right.shape, smoothing - 1))
    if dbias is not None:
        dbias += dz.sum(dim=0)
    return dz
