"""First values of weights, as one rule."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Draw every linear layer from N(0, 0.02) cut at two standard units of 1, biases zero.

    What ViT's PyTorch descendants, DeiT and Swin do. Norms start as the identity by themselves; embeddings, tables and
    convolutions draw their own values where they are made.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
