"""No token mixing: each token keeps its own value."""

from torch import nn

from vitrail.layouts import Layout
from vitrail.shapes import Tokens


class IdentityMixing(nn.Module):
    """Token mixer that mixes nothing: `y = x`, so a block adds its own norm to the residual.

    "MetaFormer Baselines for Vision", section 2.1 (IdentityFormer, the lower bound of the architecture).
    """

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Return the tokens unchanged."""
        return x
