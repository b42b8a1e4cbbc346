"""First values of weights, as one rule."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Draw every linear layer from U(-a, a) with a = sqrt(6 / (inputs + outputs)); biases are zero.

    "Understanding the difficulty of training deep feedforward neural networks", equation 16: what ViT's and Mixer's own
    code does. DeiT and Swin draw from N(0, 0.02) instead; at their widths the two are close, but 0.02 is far too small
    for the narrow models that one trains on a small data set. Norms start as the identity by themselves; embeddings,
    tables and convolutions draw their own values where they are made.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
