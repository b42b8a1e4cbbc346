"""Heads. `Features -> output`."""

from torch import Tensor, nn

from vitrail.parts.backbone import Features


class FirstToken(nn.Module):
    """Read the image off the class token."""

    def forward(self, features: Features) -> Tensor:
        """Return the first token, `(B, C)`."""
        return features.tokens[:, 0]


class MeanToken(nn.Module):
    """Read the image off the mean of its cells."""

    def forward(self, features: Features) -> Tensor:
        """Return the mean over all cells, `(B, C)`."""
        return features.tokens[:, features.grid.prefix :].mean(dim=1)


class NormedMean(nn.Module):
    """Read the image off the mean of its cells, normalised after the mean is taken.

    Args:
        dim: channels C.
        eps: epsilon of LayerNorm.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.mean = MeanToken()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, features: Features) -> Tensor:
        """Return the normalised mean over all cells, `(B, C)`."""
        return self.norm(self.mean(features))


class LinearHead(nn.Module):
    """One vector an image, then one linear layer; with no classes the vector itself is the answer.

    Args:
        pool: `Features -> (B, C)`.
        dim: channels C.
        num_classes: classes K; 0 leaves the layer out.
        bias: whether the layer has a bias.
    """

    def __init__(self, pool: nn.Module, dim: int, num_classes: int, bias: bool = True):
        super().__init__()
        self.pool = pool
        self.linear = nn.Linear(dim, num_classes, bias=bias) if num_classes else nn.Identity()

    def forward(self, features: Features) -> Tensor:
        """Return logits `(B, K)`."""
        return self.linear(self.pool(features))


class MLPHead(nn.Module):
    """One vector an image, then two linear layers; without classes the vector is the output.

    y = W_2 norm(act(W_1 x))

    "MetaFormer Baselines for Vision" (ConvFormer, CAFormer), with the squared ReLU.

    Args:
        pool: `Features -> (B, C)`.
        dim: channels C; the hidden width is 4 C.
        num_classes: classes K; 0 leaves both layers out.
        act: activation between the layers.
        eps: addend to the variance of the LayerNorm (timm: 1e-6, the authors: 1e-5).
    """

    def __init__(self, pool: nn.Module, dim: int, num_classes: int, act: nn.Module, eps: float = 1e-6):
        super().__init__()
        self.pool = pool
        layers = [nn.Linear(dim, 4 * dim), act, nn.LayerNorm(4 * dim, eps=eps)] if num_classes else []
        self.hidden = nn.Sequential(*layers)
        self.linear = nn.Linear(4 * dim, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Features) -> Tensor:
        """Return logits `(B, K)`."""
        return self.linear(self.hidden(self.pool(features)))


class DistilledHead(nn.Module):
    """Two heads on two tokens: the class token's learns from labels, the distillation token's from a teacher.

    y = (W_1 x_1 + W_2 x_2) / 2

    "Training data-efficient image transformers", section 4, which adds the two softmaxes; the authors' code takes the
    mean of the two logits, as here. The mean is also the output in training; distillation uses `both`.

    Args:
        dim: channels C.
        num_classes: classes K; 0 removes the layers and returns the mean of the two tokens.

    Example:
        >>> import torch
        >>> from vitrail.grid import Grid
        >>> features = Features(torch.zeros(5, 6, 8), Grid(2, 2, prefix=2), ())
        >>> head = DistilledHead(8, num_classes=10)
        >>> head(features).shape, [logits.shape for logits in head.both(features)]
        (torch.Size([5, 10]), [torch.Size([5, 10]), torch.Size([5, 10])])
    """

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.linear = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.distillation = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def both(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return the logits of the class token and of the distillation token, each `(B, K)`."""
        return self.linear(features.tokens[:, 0]), self.distillation(features.tokens[:, 1])

    def forward(self, features: Features) -> Tensor:
        """Return the mean of the two logits, `(B, K)`."""
        of_class, of_teacher = self.both(features)
        return (of_class + of_teacher) / 2
