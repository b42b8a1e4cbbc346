"""Small models of every way to mix tokens, made through the catalogue as a user makes them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vitrail.models import create_model

_PVT = {
    "dims": (8, 16),
    "depths": (2, 2),
    "num_heads": (1, 2),
    "sr_ratios": (4, 1),
    "mlp_ratios": (2.0, 2.0),
    "image_size": 64,
}
SMALL = {
    "vit": ("vit_tiny_patch16_224", {"depth": 3, "dim": 24, "num_heads": 3, "image_size": 64}),
    "deit": ("deit_tiny_distilled_patch16_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "swin": ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}),
    "swin timm": (
        "swin_tiny_patch4_window7_224",
        {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "edge": "timm"},
    ),
    "swin masked": (
        "swin_tiny_patch4_window7_224",
        {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "edge": "masked"},
    ),
    "swin v2": (
        "swinv2_tiny_window8_256",
        {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "image_size": 64},
    ),
    "pvt": ("pvt_tiny", _PVT),
    "pvt v2": ("pvt_v2_b0", _PVT),
    "pvt v2 linear": ("pvt_v2_b2_li", _PVT),
    "twins svt": ("twins_svt_small", {**_PVT, "window_size": 4}),
    "nest": (
        "nest_tiny",
        {"dims": (8, 16), "depths": (1, 2), "num_heads": (2, 4), "image_size": 64},
    ),
    "nat": ("nat_mini", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4)}),
    "dinat": ("dinat_mini", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "dilations": (2, 3), "kernel_size": 3}),
    "poolformer": ("poolformer_s12", {"dims": (8, 16), "depths": (1, 2)}),
    "mixer": ("mixer_s16_224", {"dim": 16, "depth": 2, "image_size": 64}),
    "cait": ("cait_xxs24_224", {"depth": 2, "class_depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "hybrid": ("vit_base_r50_s16_224", {"depths": (2, 2), "patch_size": 2, "dim": 24, "depth": 2, "num_heads": 3}),
    "bit": ("resnetv2_50x1_bit", {"depths": (2, 2), "dim": 32}),
    "bit of single blocks": ("resnetv2_50x1_bit", {"depths": (1, 1), "dim": 32}),
}
ATTENDING = (
    "vit",
    "deit",
    "swin",
    "swin timm",
    "swin masked",
    "swin v2",
    "pvt",
    "pvt v2",
    "pvt v2 linear",
    "nat",
    "dinat",
)
WITHOUT = ("poolformer", "mixer", "bit", "bit of single blocks")


def small(kind: str) -> nn.Module:
    """Build a small model whose attention is far from uniform, so that a mistake cannot hide."""
    name, numbers = SMALL[kind]
    torch.manual_seed(0)
    model = create_model(name, **{"num_classes": 5, **numbers}).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "table" in key:
                parameter.mul_(8)
    return model


@pytest.fixture(params=ATTENDING)
def attending(request: pytest.FixtureRequest) -> nn.Module:
    """A model with attention, one after the other."""
    return small(request.param)


@pytest.fixture(params=WITHOUT)
def without_attention(request: pytest.FixtureRequest) -> nn.Module:
    """A model without attention, one after the other."""
    return small(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    """Two images whose grids are no multiples of a window of 4: 12 x 9 cells of 4 pixels for a Swin, then 6 x 5.

    A NAT pads the second grid to 7 x 7, a DiNAT with a kernel of 3 and a dilation of 3 to 9 x 9.
    """
    return torch.randn(2, 3, 48, 36)


@pytest.fixture
def build() -> Callable[[str], nn.Module]:
    """Builds a small model by its kind."""
    return small
