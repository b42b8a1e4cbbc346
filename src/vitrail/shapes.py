"""The vocabulary of shapes.

One legend for the library: `B` batch, `N` tokens, `C` channels, `H W` grid rows and columns, `Y X` pixel rows and
columns, `h` heads, `d` head width, `M` keys, `K` classes. Signatures carry these aliases; tests enforce them.
"""

from jaxtyping import Float, Int
from torch import Tensor

Image = Float[Tensor, "B C Y X"]
"""A batch of images, channels first as torchvision gives them."""

TokenIds = Int[Tensor, "B N"]
"""A batch of texts, each token as its number in a vocabulary."""

SourceIds = Int[Tensor, "B M"]
"""The same for texts that other texts read."""

Tokens = Float[Tensor, "B N C"]
"""A batch of token sequences."""

FeatureMap = Float[Tensor, "B H W C"]
"""Tokens laid out as rows and columns, channels last."""

Heads = Float[Tensor, "*B h N d"]
"""Queries, keys or values, split into heads."""

HeadMap = Float[Tensor, "B H W h d"]
"""Queries, keys or values of cells laid out as rows and columns, split into heads."""

Bias = Float[Tensor, "..."]
"""An addend to attention scores that broadcasts to `(*B, h, N, M)`."""

Maps = Float[Tensor, "*B h N M"]
"""Attention probabilities: each row sums to one."""

Pooled = Float[Tensor, "B C"]
"""One vector an image."""

Logits = Float[Tensor, "B K"]
"""One score a class."""

TokenLogits = Float[Tensor, "B N V"]
"""One score for each word of a vocabulary, at each token."""
