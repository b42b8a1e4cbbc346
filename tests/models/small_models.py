"""A small model of every architecture, made through the catalogue as a user makes it, every weight drawn at random.

Fresh weights would hide mistakes: layer scales near zero silence branches, zero biases hide effects of padding.
"""

from typing import Any, NamedTuple

import torch

from vitrail.models import create_model
from vitrail.parts.backbone import Classifier


class Small(NamedTuple):
    """A small model: variant, overrides, and its layout at 64 x 64 pixels.

    Args:
        variant: name in the catalogue.
        overrides: config fields.
        strides: pixels per cell side, stage by stage.
        prefix: prefix tokens of the last grid.
        latents: latents that are the features in one row, if the tokens have no places in the image.
        any_size: whether the model takes every image size from 5 x 8 pixels up.
        batch_norm: whether it normalises by statistics of the batch in training.
    """

    variant: str
    overrides: dict[str, Any]
    strides: tuple[int, ...]
    prefix: int = 0
    latents: int = 0
    any_size: bool = True
    batch_norm: bool = False


_VIT: dict[str, Any] = {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}
_SWIN: dict[str, Any] = {"dim": 8, "depths": (2, 2), "num_heads": (2, 4)}
_NEST: dict[str, Any] = {"dims": (8, 16), "depths": (1, 2), "num_heads": (2, 4), "image_size": 64}
_TWINS: dict[str, Any] = {
    "dims": (8, 16),
    "depths": (1, 3),
    "num_heads": (1, 2),
    "sr_ratios": (4, 2),
    "mlp_ratios": (4.0, 2.0),
}
_PVT: dict[str, Any] = {
    "dims": (8, 16),
    "depths": (1, 2),
    "num_heads": (1, 2),
    "sr_ratios": (4, 1),
    "mlp_ratios": (4.0, 2.0),
    "image_size": 64,
}
_META: dict[str, Any] = {"dims": (8, 16, 24), "depths": (1, 1, 2)}
_CROSS: dict[str, Any] = {"depth": 2, "fine_dim": 12, "coarse_dim": 24, "coarse_depth": 2, "num_heads": 3}
SMALL: dict[str, Small] = {
    "vit": Small("vit_tiny_patch16_224", _VIT, (16,), prefix=1),
    "hybrid": Small("vit_small_r26_s32_224", {"depths": (1, 2), **_VIT}, (4, 8, 8), prefix=1),
    "hybrid stem": Small("vit_tiny_r_s16_p8_224", _VIT, (32,), prefix=1),
    "deit": Small("deit_tiny_patch16_224", _VIT, (16,), prefix=1),
    "deit distilled": Small("deit_tiny_distilled_patch16_224", _VIT, (16,), prefix=2),
    "swin official": Small("swin_tiny_patch4_window7_224", _SWIN, (4, 8)),
    "swin timm": Small("swin_tiny_patch4_window7_224", {**_SWIN, "edge": "timm"}, (4, 8)),
    "swin masked": Small("swin_tiny_patch4_window7_224", {**_SWIN, "edge": "masked"}, (4, 8)),
    "swin v2": Small("swinv2_tiny_window8_256", {**_SWIN, "window_size": 5, "image_size": 64}, (4, 8)),
    "nest": Small("nest_tiny", _NEST, (4, 8)),
    "nest same": Small("nest_tiny_jx", _NEST, (4, 8)),
    "pvt": Small("pvt_tiny", _PVT, (4, 8), prefix=1),
    "pvt v2": Small("pvt_v2_b0", _PVT, (4, 8)),
    "pvt v2 linear": Small("pvt_v2_b2_li", _PVT, (4, 8)),
    "twins pcpvt": Small("twins_pcpvt_small", _TWINS, (4, 8)),
    "twins svt": Small("twins_svt_small", {**_TWINS, "window_size": 5}, (4, 8)),
    "cct": Small("cct_7_3x2_32", {**_VIT, "mlp_ratio": 2.0}, (4,)),
    "cvt": Small("cvt_7_4_32", {**_VIT, "mlp_ratio": 2.0}, (4,)),
    "nat": Small("nat_mini", _SWIN, (4, 8)),
    "nat scaled": Small("nat_base", {**_SWIN, "depths": (1, 2), "kernel_size": 3}, (4, 8)),
    "dinat": Small("dinat_mini", {**_SWIN, "dilations": (3, 2), "kernel_size": 5}, (4, 8)),
    "dinat_s": Small("dinat_s_tiny", {**_SWIN, "dilations": (2, 1)}, (4, 8)),
    "poolformer": Small("poolformer_s12", {"dims": (8, 16), "depths": (1, 2)}, (4, 8)),
    "poolformer timm": Small("poolformer_s12", {"dims": (8, 16), "depths": (1, 2), "pooling": "timm"}, (4, 8)),
    "vmoe": Small(
        "vmoe_s32_last2",
        {**_VIT, "expert_blocks": (1,), "num_experts": 2, "noise": 0.0, "patch_size": 16},
        (16,),
        prefix=1,
    ),
    **{
        f"perceiver {inputs}": Small(
            f"perceiver_io_{inputs}",
            {"latents": 6, "dim": 16, "depth": 2, "repeats": 2, "num_heads": 2, "image_size": 64},
            (),
            any_size=inputs == "fourier",
            latents=6,
            batch_norm=inputs == "conv",
        )
        for inputs in ("learned", "fourier", "conv")
    },
    "perceiver original": Small(
        "perceiver_fourier",
        {"latents": 6, "dim": 16, "depth": 2, "reads": 3, "num_heads": 2, "image_size": 64},
        (),
        latents=6,
    ),
    "botnet": Small(
        "botnet26t_256",
        {"dim": 16, "image_size": 64},
        (4, 8, 16, 32),
        any_size=False,
        batch_norm=True,
    ),
    "halonet": Small(
        "halonet50ts",
        {"dim": 16, "depths": (1, 2), "attention": ((), (0, 1)), "num_heads": (2, 2)},
        (4, 8),
        batch_norm=True,
    ),
    **{
        f"sasa {stem}": Small(name, {"dim": 32, "depths": (1, 2)}, (4, 8), batch_norm=True)
        for stem, name in (("conv", "sasa_resnet26"), ("attention", "sasa_resnet26_full"))
    },
    **{
        f"nonlocal {name}": Small(name, {"dim": 8, "depths": (1, 2), "blocks": ((), (1,))}, (4, 8), batch_norm=True)
        for name in ("nonlocal1_resnet50", "nonlocal1_resnet50_dot", "nonlocal1_resnet50_concatenation")
    },
    **{
        f"vt {name}": Small(
            name, {"dim": 8, "depths": (1, 2), "depth": 2, "tokens": 3}, (4, 8, 8), prefix=3, batch_norm=True
        )
        for name in ("vt_resnet50", "vt_resnet50_filter")
    },
    "resnet": Small("resnet50", {"dim": 8, "depths": (1, 2)}, (4, 8), batch_norm=True),
    "igpt": Small(
        "imagegpt_small",
        {"dim": 8, "depth": 2, "num_heads": 1, "colors": 27, "image_size": 64},
        (1,),
        any_size=False,
    ),
    "convnext": Small("convnext_tiny", {"dims": (8, 16), "depths": (1, 2)}, (4, 8)),
    "convnextv2": Small("convnextv2_tiny", {"dims": (8, 16), "depths": (1, 2)}, (4, 8)),
    "caformer": Small("caformer_s18", {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 2)}, (4, 8, 16, 32)),
    "convformer": Small("convformer_s18", {**_META, "token_mixers": ("convolution",) * 3}, (4, 8, 16)),
    "poolformerv2": Small("poolformerv2_s12", {**_META, "token_mixers": ("pooling",) * 3}, (4, 8, 16)),
    "identityformer": Small("identityformer_s12", {**_META, "token_mixers": ("identity",) * 3}, (4, 8, 16)),
    "randformer": Small(
        "randformer_s12",
        {**_META, "token_mixers": ("identity", "random", "random"), "image_size": 64},
        (4, 8, 16),
        any_size=False,
    ),
    "mixer": Small("mixer_s16_224", {"dim": 16, "depth": 2, "image_size": 64}, (16,), any_size=False),
    "bit": Small("resnetv2_50x1_bit", {"depths": (1, 2), "dim": 32}, (4, 8)),
    "tnt": Small("tnt_s_patch16_224", {**_VIT, "inner_dim": 8}, (16,), prefix=1),
    "tnt legacy": Small("tnt_s_legacy_patch16_224", {**_VIT, "inner_dim": 8}, (16,), prefix=1),
    "cpvt": Small("cpvt_tiny", {**_VIT, "depth": 3, "pegs": 2}, (16,), prefix=1),
    "cpvt gap": Small("cpvt_tiny_gap", _VIT, (16,)),
    "deepvit": Small("deepvit_patch16_224_re_attn_16b", _VIT, (16,), prefix=1, batch_norm=True),
    "cait": Small("cait_xxs24_224", {**_VIT, "class_depth": 1}, (16, 16), prefix=1),
    "convit": Small("convit_tiny", {**_VIT, "num_heads": 4, "class_depth": 1}, (16, 16), prefix=1),
    "xcit": Small("xcit_tiny_12_p16_224", {**_VIT, "class_depth": 1}, (16, 16), prefix=1, batch_norm=True),
    "xcit nano": Small("xcit_nano_12_p8_224", {**_VIT, "class_depth": 2}, (8, 8), prefix=1, batch_norm=True),
    "dinov2": Small("vit_small_patch14_dinov2", {**_VIT, "patch_size": 16}, (16,), prefix=1),
    "dinov2 registers": Small("vit_giant_patch14_reg4_dinov2", {**_VIT, "patch_size": 16}, (16,), prefix=5),
    "siglip": Small("vit_base_patch16_siglip_224", _VIT, (16,)),
    "siglip gap": Small("vit_large_patch16_siglip_gap_512", _VIT, (16,)),
    "eva02": Small("eva02_tiny_patch14_224", {**_VIT, "patch_size": 16}, (16,), prefix=1),
    "eva02 sub-norm": Small("eva02_base_patch14_224", {**_VIT, "patch_size": 16}, (16,), prefix=1),
    "retnet": Small("retnet_tiny_patch16_224", {**_VIT, "num_heads": 2}, (16,)),
    "crossvit": Small("crossvit_tiny_240", {**_CROSS, "fine_patch": 8, "image_size": 64}, (8,), prefix=1),
    "crossvit dagger": Small("crossvit_9_dagger_240", {**_CROSS, "fine_patch": 16, "image_size": 64}, (16,), prefix=1),
}
ANY_SIZE = [name for name, model in SMALL.items() if model.any_size]


def small(name: str, **overrides: Any) -> Classifier:
    """Make a small model in evaluation mode, all its weights random and none small."""
    model = create_model(SMALL[name].variant, **{"num_classes": 10, **SMALL[name].overrides, **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn_like(parameter) * 0.5 / fan_in**0.5 + (parameter.ndim == 1) * 0.5)
    return model


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the length of the difference as a share of the length wanted."""
    return ((got - want).norm() / want.norm()).item()
