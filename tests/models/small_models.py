"""A small model of every architecture, made through the catalogue as a user makes it, every weight drawn at random.

Fresh weights would hide mistakes: layer scales near zero silence branches, zero biases hide what padding does.
"""

from typing import Any

import torch

from vitrail.models import create_model
from vitrail.parts.backbone import Classifier

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "hybrid": (
        "vit_small_r26_s32_224",
        {"depths": (1, 2), "depth": 2, "dim": 24, "num_heads": 3, "image_size": 64},
    ),
    "hybrid stem": ("vit_tiny_r_s16_p8_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "deit": ("deit_tiny_patch16_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "deit distilled": ("deit_tiny_distilled_patch16_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "swin official": ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4)}),
    "swin timm": ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "edge": "timm"}),
    "swin masked": (
        "swin_tiny_patch4_window7_224",
        {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "edge": "masked"},
    ),
    "nat": ("nat_mini", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4)}),
    "nat scaled": ("nat_base", {"dim": 8, "depths": (1, 2), "num_heads": (2, 4), "kernel_size": 3}),
    "dinat": ("dinat_mini", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "dilations": (3, 2), "kernel_size": 5}),
    "dinat_s": ("dinat_s_tiny", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "dilations": (2, 1)}),
    "poolformer": ("poolformer_s12", {"dims": (8, 16), "depths": (1, 2)}),
    "poolformer timm": ("poolformer_s12", {"dims": (8, 16), "depths": (1, 2), "pooling": "timm"}),
    "mixer": ("mixer_s16_224", {"dim": 16, "depth": 2, "image_size": 64}),
    "bit": ("resnetv2_50x1_bit", {"depths": (1, 2), "dim": 32}),
}
ANY_SIZE = [name for name in SMALL if name != "mixer"]


def small(name: str, **overrides: Any) -> Classifier:
    """Make a small model in evaluation mode, all its weights random and none small."""
    variant, numbers = SMALL[name]
    model = create_model(variant, **{"num_classes": 10, **numbers, **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn_like(parameter) * 0.5 / fan_in**0.5 + (parameter.ndim == 1) * 0.5)
    return model


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the length of the difference as a share of the length wanted."""
    return ((got - want).norm() / want.norm()).item()
