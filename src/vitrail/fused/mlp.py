"""The MLP of a block in its fast form."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import Affine, scaled
from vitrail.fused.unsupported import NotConverted, check_exact_type
from vitrail.grid import Grid
from vitrail.native.gemm import mlp, pack_linear
from vitrail.parts.channel_mixers import MLP
from vitrail.shapes import Tokens


class FusedMLP(nn.Module):
    """`x + scale(mlp(norm(x)))` in one go; a norm that is no LayerNorm runs before it."""

    def __init__(self, norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        affine = Affine.of(norm, mixer.fc1.in_features)
        self.norm = nn.Identity() if affine.eps is not None else norm
        self.eps = affine.eps
        self.first = pack_linear(*affine.folded(mixer.fc1), dtype)
        self.second = pack_linear(*scaled(mixer.fc2, scale), dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return mlp(self.norm(x), self.first, self.second, add=x, norm_eps=self.eps)


def fuse_mlp(norm: nn.Module, mixer: MLP, scale: nn.Module, dtype: torch.dtype) -> FusedMLP:
    """Return the fast form of an MLP's branch.

    Raises:
        NotConverted: another activation, an odd number of channels in bf16, or an unknown scale.
    """
    check_mlp(mixer, dtype)
    return FusedMLP(norm, mixer, scale, dtype)


def check_mlp(mixer: MLP, dtype: torch.dtype) -> None:
    """Refuse an MLP that no compiled form computes.

    Raises:
        NotConverted: another activation or kind of layer, or an odd number of channels in bf16.
    """
    check_layers(mixer)
    if dtype == torch.bfloat16 and (mixer.fc1.in_features % 2 or mixer.fc2.in_features % 2):
        raise NotConverted("odd numbers of channels cannot be read in pairs")


def check_layers(mixer: MLP) -> None:
    """Refuse an MLP whose layers are not two linear ones with the exact GELU in between.

    Raises:
        NotConverted: they are not.
    """
    if type(mixer.act) is not nn.GELU or mixer.act.approximate != "none":
        raise NotConverted(f"{type(mixer.act).__name__} is not the exact GELU")
    check_exact_type(nn.Linear, mixer.fc1, mixer.fc2)
