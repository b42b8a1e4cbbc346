"""Attention pooling without a class token."""

from torch import Tensor, nn

from vitrail.parts.backbone import Features


class SequencePool(nn.Module):
    """Mean of the cells, weighted by a softmax over a learned score of each.

    z = softmax(x w + b)^T x

    "Escaping the Big Data Paradigm with Compact Transformers", section 3.2, equations 3 to 5.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, features: Features) -> Tensor:
        """Return the weighted mean over all cells, `(B, C)`."""
        cells = features.tokens[:, features.grid.prefix :]
        weights = self.score(cells).softmax(dim=1)  # (B, N, 1)
        return (weights.mT @ cells)[:, 0]
