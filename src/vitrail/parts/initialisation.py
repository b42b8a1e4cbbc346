"""First values of weights: one rule for most models, and those of ViT's and Mixer's authors.

Norms start as the identity by themselves; embeddings, tables and convolutions draw their own values where they are
made. The authors of ViT and Mixer begin the head with zeros; here it is drawn like the rest, so that the body learns
from the first step on.
"""

from collections.abc import Iterator

from torch import nn

from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.retention import Retention

# A normal distribution that is cut off at two deviations has this share of its deviation left.
CUT = 0.8796256610342398


def initialise(model: nn.Module) -> None:
    """Draw every linear layer from U(-a, a) with a = sqrt(6 / (inputs + outputs)); biases are zero.

    "Understanding the difficulty of training deep feedforward neural networks", equation 16. This is our choice: DeiT,
    Swin, NAT and PoolFormer draw from N(0, 0.02^2) instead; at their widths the two are close, but 0.02 is far too
    small for the narrow models that one trains on a small data set. Queries, keys and values are one layer here.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> initialise(layer)
        >>> layer.bias.abs().max().item()
        0.0
    """
    for layer in _linear(model):
        nn.init.xavier_uniform_(layer.weight)


def initialise_as_vit(model: nn.Module) -> None:
    """Draw as `initialise`, but queries, keys and values each for itself, and the biases of MLPs from N(0, 1e-6^2).

    So does the code of "An Image is Worth 16x16 Words" (google-research/vision_transformer), but for the head.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> initialise_as_vit(layer)
        >>> layer.bias.abs().max().item() < 1e-3
        True
    """
    initialise(model)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(".qkv"):
            for part in layer.weight.detach().chunk(3):  # three layers in one, so three times as many outputs
                nn.init.xavier_uniform_(part)
        if isinstance(layer, MLP):
            nn.init.normal_(layer.fc1.bias, std=1e-6)
            nn.init.normal_(layer.fc2.bias, std=1e-6)


def initialise_as_mixer(model: nn.Module) -> None:
    """Draw every linear layer from N(0, 1 / inputs), cut off at two deviations; biases are zero.

    "Efficient BackProp", section 4.6, for the deviation. So does the code of "MLP-Mixer" (Flax's default), but for the
    head.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> initialise_as_mixer(layer)
        >>> layer.bias.abs().max().item()
        0.0
    """
    for layer in _linear(model):
        std = layer.in_features**-0.5 / CUT
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)


def _linear(model: nn.Module) -> Iterator[nn.Linear]:
    """Give each linear layer after setting its bias to zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            yield module


def initialise_as_bert(model: nn.Module) -> None:
    """Draw linear layers, word and segment tables from N(0, 0.02^2), cut off at two deviations; biases are zero.

    The code of "BERT"; GPT-2 draws alike without the cut.

    Example:
        >>> layer = nn.Linear(64, 64)
        >>> initialise_as_bert(layer)
        >>> layer.weight.abs().max().item() <= 0.0401
        True
    """
    for layer in _linear(model):
        nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)


def initialise_as_gpt2(model: nn.Module, depth: int) -> None:
    """Draw as `initialise_as_bert`, the projections back into the residual from N(0, 0.02^2 / (2 depth)).

    The code of GPT-2: "Language Models are Unsupervised Multitask Learners", section 2.3, has sqrt of the number of
    residual branches, of which a layer has two.

    Args:
        model: a decoder.
        depth: its layers.
    """
    initialise_as_bert(model)
    for name, parameter in model.named_parameters():
        if name.endswith(("proj.weight", "fc2.weight")):
            nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)


def initialise_as_retnet(model: nn.Module) -> None:
    """Draw as `initialise`, the inputs of retentions smaller by 2^-2.5 and their outputs by 2^-1.

    The code of "Retentive Network" (torchscale); word tables are drawn from N(0, 1 / C).
    """
    initialise(model)
    for module in model.modules():
        if isinstance(module, Retention):
            for layer in (module.q, module.k, module.v, module.gate):
                nn.init.xavier_uniform_(layer.weight, gain=2**-2.5)
            nn.init.xavier_uniform_(module.proj.weight, gain=2**-1)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
