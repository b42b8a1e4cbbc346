"""Learned transforms of coordinates and features: the T-nets of PointNet."""

import torch
from torch import Tensor, nn

from vitrail.parts.shared_mlp import SharedMLP


class TNet(nn.Module):
    """Multiply each point by a matrix that is predicted from the whole cloud.

    A = I + W mlp(max_n shared_mlp(x_n));  y_n = x_n A

    "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", Qi et al., 2017, section 4.2 and
    appendix C. W starts at zero, so the transform starts as the identity. With `penalty` the loss gains
    `penalty |I - A A^T|^2` (equation 2), summed over the matrix and averaged over clouds.

    Args:
        dim: channels C that are transformed.
        inputs: channels that predict the matrix; the first C of them are transformed, the others stay.
        widths: channels of the shared layers and of the layers after the maximum.
        penalty: weight of the penalty.

    Example:
        >>> x = torch.randn(2, 7, 3)
        >>> torch.equal(TNet(3)(x), x)
        True
    """

    def __init__(
        self,
        dim: int,
        inputs: int | None = None,
        widths: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 128, 1024), (512, 256)),
        penalty: float = 0.0,
    ):
        super().__init__()
        shared, after = widths
        self.dim, self.penalty = dim, penalty
        self.shared = SharedMLP((inputs or dim, *shared))
        self.after = SharedMLP((shared[-1], *after))
        self.linear = nn.Linear(after[-1], dim * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self._loss: Tensor | None = None

    def matrices(self, x: Tensor) -> Tensor:
        """Return the matrix of each cloud, `(B, C, C)`."""
        pooled = self.after(self.shared(x).amax(dim=1))
        found = self.linear(pooled).unflatten(-1, (self.dim, self.dim))
        return found + torch.eye(self.dim, dtype=found.dtype, device=found.device)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(B, N, C)`."""
        matrices = self.matrices(x)
        if self.training and self.penalty:
            rest = torch.eye(self.dim, device=x.device) - matrices.float() @ matrices.float().transpose(1, 2)
            self._loss = self.penalty * rest.square().sum(dim=(1, 2)).mean()
        moved = x[..., : self.dim] @ matrices
        return torch.cat([moved, x[..., self.dim :]], dim=-1) if x.shape[-1] > self.dim else moved

    def auxiliary_loss(self) -> Tensor:
        """Return the penalty of the last forward pass in training."""
        found, self._loss = self._loss, None
        return self.linear.weight.new_zeros(()) if found is None else found
