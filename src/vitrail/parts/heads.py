"""From features to answers. `Features -> output`."""

from torch import Tensor, nn

from vitrail.parts.backbone import Features


class FirstToken(nn.Module):
    """Read the picture off the class token."""

    def forward(self, features: Features) -> Tensor:
        """Return the first token, `(B, C)`."""
        return features.tokens[:, 0]


class MeanToken(nn.Module):
    """Read the picture off the mean of its cells."""

    def forward(self, features: Features) -> Tensor:
        """Return the mean over all cells, `(B, C)`."""
        return features.tokens[:, features.grid.prefix :].mean(dim=1)


class LinearHead(nn.Module):
    """One vector a picture, then one linear layer; with no classes the vector itself is the answer.

    Args:
        pool: `Features -> (B, C)`.
        dim: channels C.
        num_classes: classes K; 0 leaves the layer out.
    """

    def __init__(self, pool: nn.Module, dim: int, num_classes: int):
        super().__init__()
        self.pool = pool
        self.linear = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Features) -> Tensor:
        """Return logits `(B, K)`."""
        return self.linear(self.pool(features))
