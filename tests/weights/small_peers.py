"""Small models of other libraries and ours with the same numbers: the pairs of the parity tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from vitrail.models import create_model


@dataclass(frozen=True)
class Pair:
    """A peer and how to build ours alike."""

    format: str
    variant: str
    overrides: dict[str, Any]
    make_peer: Callable[..., nn.Module]
    size: int = 32
    others: tuple[int, ...] = ()
    """Other image sizes, which `make_peer` takes as its argument."""

    def peer(self, *size: int) -> nn.Module:
        """Build the peer with every parameter drawn, so that nothing agrees because it is zero or one."""
        model = self.make_peer(*size).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
            for name, buffer in model.named_buffers():
                if "running" in name:  # means 0 and variances 1 would hide which is which
                    buffer.add_(torch.rand_like(buffer) * 0.5)
        return model

    def ours(self, **more: Any) -> nn.Module:
        """Build ours."""
        return create_model(self.variant, **{**self.overrides, "image_size": self.size, **more}).eval()


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Run any library's classifier."""
    with torch.no_grad():
        out = model(images)
    return out.logits if hasattr(out, "logits") else out


def difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


VIT = dict(dim=32, depth=2, num_heads=2, patch_size=8, num_classes=5)
SWIN = dict(dim=16, depths=(2, 2), num_heads=(2, 4), num_classes=5)
SWIN_V2 = dict(**SWIN, window_size=7)
PRETRAINED = dict(pretrained_windows=(4, 3))
NEST = dict(dims=(8, 16, 24), depths=(1, 2, 1), num_heads=(1, 2, 3), num_classes=5)
PVT = dict(
    dims=(8, 16, 24, 32),
    depths=(1, 2, 1, 1),
    num_heads=(1, 2, 3, 4),
    sr_ratios=(4, 2, 2, 1),
    mlp_ratios=(4.0, 2.0, 4.0, 2.0),
    num_classes=5,
)
TWINS = {**PVT, "depths": (1, 2, 1, 3)}
HF_EPS = dict(reduction_eps=1e-6)
POOL = dict(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_classes=5)


def _timm_vit():
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)


def _torchvision_vit():
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=128, num_classes=5)


def _huggingface(model: str, **numbers: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, model.removesuffix("WithTeacher").removesuffix("ForImageClassification") + "Config")
    config = config(num_labels=5, **numbers)
    return getattr(transformers, model)(config)


_HF_VIT = dict(
    image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
)
_HF_VIT["layer_norm_eps"] = 1e-6  # Hugging Face's default is 1e-12; the published weights were trained with 1e-6


def _timm_distilled():
    from timm.models.deit import VisionTransformerDistilled

    return VisionTransformerDistilled(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)


def _timm_swin():
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(56, embed_dim=16, depths=(2, 2), num_heads=(2, 4), num_classes=5)


def _torchvision_swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 16, depths=[2, 2], num_heads=[2, 4], window_size=[7, 7], num_classes=5)


def _timm_swin_v2():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    return SwinTransformerV2(
        56,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=5,
        window_size=7,
        pretrained_window_sizes=(4, 3),
    )


def _torchvision_swin_v2():
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    return SwinTransformer(
        [4, 4],
        16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[7, 7],
        num_classes=5,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )


def _timm_nest(size: int = 64, **more: Any) -> nn.Module:
    from timm.models.nest import Nest

    numbers = {key: value for key, value in NEST.items() if key != "dims"}
    return Nest(img_size=size, embed_dims=NEST["dims"], **numbers, **more)


def _timm_twins(**more: Any) -> nn.Module:
    from timm.models.twins import Twins

    numbers = {key: value for key, value in PVT.items() if key != "dims"}
    return Twins(img_size=64, embed_dims=PVT["dims"], **{**numbers, "depths": (1, 2, 1, 3)}, **more)


def _timm_pvt_v2(linear: bool) -> nn.Module:
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    numbers = {key: value for key, value in PVT.items() if key != "dims"}
    return PyramidVisionTransformerV2(embed_dims=PVT["dims"], linear=linear, **numbers)


def _timm(name: str, **numbers: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=5, **numbers)


def _timm_poolformer() -> nn.Module:
    from timm.models.metaformer import GroupNorm1, MetaFormer

    return MetaFormer(
        dims=(8, 16, 24, 32),
        depths=(1, 2, 1, 1),
        num_classes=5,
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=0.5,
        res_scale_init_values=(None,) * 4,
        use_mlp_head=False,
    )


META = dict(depths=(1, 1, 1, 2), dims=(8, 16, 32, 64), num_classes=5)
META_SIZES = (96, 75)


def _timm_metaformer(kind: str, size: int = 64) -> nn.Module:
    from timm.models.metaformer import (
        Attention,
        GroupNorm1NoBias,
        LayerNorm2dNoBias,
        LayerNormNoBias,
        MetaFormer,
        Pooling,
        SepConv,
    )

    mixers, norms, mlp_head = {
        "caformer": ([SepConv] * 2 + [Attention] * 2, [LayerNorm2dNoBias] * 2 + [LayerNormNoBias] * 2, True),
        "convformer": (SepConv, LayerNorm2dNoBias, True),
        "poolformerv2": (Pooling, GroupNorm1NoBias, False),
    }[kind]
    return MetaFormer(token_mixers=mixers, norm_layers=norms, use_mlp_head=mlp_head, **META)


CONVNEXT = dict(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_classes=5)
_HF_CONVNEXT = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1], layer_norm_eps=1e-6)


def _timm_convnext(size: int = 64, **numbers: Any) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(conv_mlp=True, **CONVNEXT, **numbers)


def _torchvision_convnext(size: int = 64) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 2), CNBlockConfig(24, 32, 1), CNBlockConfig(32, None, 1)]
    return ConvNeXt(blocks, num_classes=5)


def _huggingface_convnext(version: str, size: int = 64) -> nn.Module:
    return _huggingface(f"ConvNext{version}ForImageClassification", **_HF_CONVNEXT)


def _timm_mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(5, img_size=32, patch_size=8, num_blocks=2, embed_dim=32)


def _timm_bit() -> nn.Module:
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

    return ResNetV2([2, 1, 1, 1], num_classes=5, stem_type="fixed", conv_layer=partial(StdConv2d, eps=1e-8))


_HF_POOL = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1], layer_scale_init_value=0.5)
_HF_PVT = dict(
    hidden_sizes=[8, 16, 24, 32],
    depths=[1, 2, 1, 1],
    num_attention_heads=[1, 2, 3, 4],
    mlp_ratios=[4, 2, 4, 2],
    image_size=64,
)
_HF_BIT = dict(depths=[2, 1, 1, 1], embedding_size=64, num_groups=32)
_HYBRID = dict(dim=32, depth=2, num_heads=2, num_classes=5)
_TIMM_HYBRID = dict(embed_dim=32, depth=2, num_heads=2)

_TNT = dict(dim=24, num_heads=3, inner_dim=8, depth=2, num_classes=5)
_CAIT = dict(dim=24, num_heads=3, depth=2, class_depth=1, num_classes=5)


def _timm_cait(size: int = 64) -> nn.Module:
    return _timm("cait_xxs24_224", img_size=size, embed_dim=24, num_heads=3, depth=2, depth_token_only=1)


_CONVIT = dict(dim=16, num_heads=4, depth=2, class_depth=2, num_classes=5)
_XCIT = dict(dim=24, num_heads=3, depth=2, class_depth=2, num_classes=5)


def _timm_convit(size: int = 64) -> nn.Module:
    return _timm("convit_tiny", img_size=size, embed_dim=4, num_heads=4, depth=4, local_up_to_layer=2)


def _timm_xcit(name: str, size: int = 64) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=24, num_heads=3, depth=2)


_DINO = dict(dim=24, num_heads=3, depth=2, num_classes=5)


def _timm_dinov2(name: str, size: int = 56) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=24, num_heads=3, depth=2)


_SIGLIP = dict(dim=24, num_heads=3, depth=2, num_classes=5)


def _timm_siglip(name: str, size: int = 64) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=24, num_heads=3, depth=2)


_EVA02 = dict(dim=24, num_heads=3, depth=2, num_classes=5)


def _timm_eva02(name: str, size: int = 56) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=24, num_heads=3, depth=2)


_CROSSVIT = dict(fine_dim=12, coarse_dim=24, coarse_depth=2, num_heads=3, depth=2, num_classes=5)


def _timm_crossvit(name: str, size: int = 240) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=(12, 24), depth=((1, 2, 0),) * 2, num_heads=(3, 3))


def _timm_tnt(name: str, size: int = 64) -> nn.Module:
    return _timm(name, img_size=size, embed_dim=24, inner_dim=8, depth=2, num_heads_outer=3)


RESNET = dict(depths=(1, 2, 1, 2), dim=64, num_classes=5)


def _torchvision_resnet(size: int = 64):
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 2], num_classes=5)


def _timm_resnet(size: int = 64):
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, (1, 2, 1, 2), num_classes=5)


def _huggingface_resnet(size: int = 64):
    widths = [256, 512, 1024, 2048]
    return _huggingface("ResNetForImageClassification", embedding_size=64, hidden_sizes=widths, depths=[1, 2, 1, 2])


PAIRS = {
    "vit-timm": Pair("timm", "vit_tiny_patch16_224", VIT, _timm_vit),
    "vit-torchvision": Pair("torchvision", "vit_tiny_patch16_224", VIT, _torchvision_vit),
    "vit-huggingface": Pair(
        "huggingface", "vit_tiny_patch16_224", VIT, lambda: _huggingface("ViTForImageClassification", **_HF_VIT)
    ),
    "deit-timm": Pair("timm", "deit_tiny_distilled_patch16_224", VIT, _timm_distilled),
    "deit-huggingface": Pair(
        "huggingface",
        "deit_tiny_distilled_patch16_224",
        VIT,
        lambda: _huggingface("DeiTForImageClassificationWithTeacher", **_HF_VIT),
    ),
    "swin-timm": Pair("timm", "swin_tiny_patch4_window7_224", SWIN, _timm_swin, 56),
    "swin-torchvision": Pair("torchvision", "swin_tiny_patch4_window7_224", SWIN, _torchvision_swin, 56),
    "swin-huggingface": Pair(
        "huggingface",
        "swin_tiny_patch4_window7_224",
        SWIN,
        lambda: _huggingface(
            "SwinForImageClassification", image_size=56, embed_dim=16, depths=[2, 2], num_heads=[2, 4]
        ),
        56,
    ),
    "swin_v2_moved-timm": Pair("timm", "swinv2_tiny_window8_256", {**SWIN_V2, **PRETRAINED}, _timm_swin_v2, 56),
    "swin_v2-torchvision": Pair("torchvision", "swinv2_tiny_window8_256", SWIN_V2, _torchvision_swin_v2, 56),
    "swin_v2_moved-huggingface": Pair(
        "huggingface",
        "swinv2_tiny_window8_256",
        {**SWIN_V2, **PRETRAINED},
        lambda: _huggingface(
            "Swinv2ForImageClassification",
            image_size=56,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=7,
            pretrained_window_sizes=[4, 3],
        ),
        56,
    ),
    "nest-timm": Pair("timm", "nest_tiny", NEST, _timm_nest, 64, others=(48, 80)),
    "nest_same-timm": Pair("timm", "nest_tiny_jx", NEST, partial(_timm_nest, pad_type="same"), 64, others=(48, 80)),
    "twins_pcpvt-timm": Pair("timm", "twins_pcpvt_small", TWINS, _timm_twins, 64),
    "twins_svt-timm": Pair(
        "timm", "twins_svt_small", {**TWINS, "window_size": 7}, lambda: _timm_twins(wss=(7, 7, 7, 7)), 64
    ),
    "pvt-huggingface": Pair(
        "huggingface",
        "pvt_tiny",
        {**PVT, **HF_EPS},
        lambda size=64: _huggingface(
            "PvtForImageClassification", **{**_HF_PVT, "image_size": size}, sequence_reduction_ratios=[4, 2, 2, 1]
        ),
        64,
        others=(96, 128),
    ),
    "pvt_v2-timm": Pair("timm", "pvt_v2_b0", PVT, lambda: _timm_pvt_v2(linear=False), 64),
    "pvt_v2_linear-timm": Pair("timm", "pvt_v2_b2_li", PVT, lambda: _timm_pvt_v2(linear=True), 64),
    "pvt_v2-huggingface": Pair(
        "huggingface",
        "pvt_v2_b0",
        {**PVT, **HF_EPS},
        lambda: _huggingface("PvtV2ForImageClassification", sr_ratios=[4, 2, 2, 1], **_HF_PVT),
        64,
    ),
    "pvt_v2_linear-huggingface": Pair(
        "huggingface",
        "pvt_v2_b2_li",
        {**PVT, **HF_EPS},
        lambda: _huggingface("PvtV2ForImageClassification", sr_ratios=[4, 2, 2, 1], linear_attention=True, **_HF_PVT),
        64,
    ),
    "poolformer-timm": Pair(
        "timm",
        "poolformer_s12",
        {**POOL, "pooling": "timm"},
        _timm_poolformer,
        64,
    ),
    "poolformer-huggingface": Pair(
        "huggingface", "poolformer_s12", POOL, lambda: _huggingface("PoolFormerForImageClassification", **_HF_POOL), 64
    ),
    "resnet-torchvision": Pair("torchvision", "resnet50", RESNET, _torchvision_resnet, 64, (96, 75)),
    "resnet-timm": Pair("torchvision", "resnet50", RESNET, _timm_resnet, 64, (96, 75)),
    "resnet-huggingface": Pair("huggingface", "resnet50", RESNET, _huggingface_resnet, 64, (96, 75)),
    "convnext-timm": Pair("timm", "convnext_tiny", CONVNEXT, _timm_convnext, 64, (96, 76)),
    "convnext-torchvision": Pair("torchvision", "convnext_tiny", CONVNEXT, _torchvision_convnext, 64, (96, 76)),
    "convnext-huggingface": Pair(
        "huggingface", "convnext_tiny", CONVNEXT, partial(_huggingface_convnext, ""), 64, (96, 76)
    ),
    "convnextv2-timm": Pair(
        "timm",
        "convnextv2_tiny",
        CONVNEXT,
        partial(_timm_convnext, use_grn=True, ls_init_value=None),
        64,
        (96, 76),
    ),
    "convnextv2-huggingface": Pair(
        "huggingface", "convnextv2_tiny", CONVNEXT, partial(_huggingface_convnext, "V2"), 64, (96, 76)
    ),
    **{
        f"{kind}-timm": Pair("timm", f"{kind}_{size}", META, partial(_timm_metaformer, kind), 64, META_SIZES)
        for kind, size in (("caformer", "s18"), ("convformer", "s18"), ("poolformerv2", "s12"))
    },
    "mixer-timm": Pair(
        "timm",
        "mixer_s32_224",
        dict(dim=32, depth=2, patch_size=8, num_classes=5),
        _timm_mixer,
    ),
    "bit-timm": Pair(
        "timm",
        "resnetv2_50x1_bit",
        dict(depths=(2, 1, 1, 1), num_classes=5),
        _timm_bit,
        64,
    ),
    "bit-huggingface": Pair(
        "huggingface",
        "resnetv2_50x1_bit",
        dict(depths=(2, 1, 1, 1), num_classes=5),
        lambda: _huggingface("BitForImageClassification", **_HF_BIT),
        64,
    ),
    "hybrid-r26-timm": Pair(
        "timm",
        "vit_small_r26_s32_224",
        _HYBRID,
        lambda: _timm("vit_small_r26_s32_224", img_size=64, **_TIMM_HYBRID),
        64,
    ),
    "hybrid-root-timm": Pair(
        "timm",
        "vit_tiny_r_s16_p8_224",
        _HYBRID,
        lambda: _timm("vit_tiny_r_s16_p8_224", img_size=64, **_TIMM_HYBRID),
        64,
    ),
    "tnt-timm": Pair("timm", "tnt_s_patch16_224", _TNT, partial(_timm_tnt, "tnt_s_patch16_224"), 64, (16, 80)),
    "tnt-legacy-timm": Pair(
        "timm", "tnt_s_legacy_patch16_224", _TNT, partial(_timm_tnt, "tnt_s_legacy_patch16_224"), 64, (16, 80)
    ),
    "cait-timm": Pair("timm", "cait_xxs24_224", _CAIT, _timm_cait, 64, (16, 80)),
    "convit-timm": Pair("timm", "convit_tiny", _CONVIT, _timm_convit, 64, (16, 80)),
    "xcit-timm": Pair("timm", "xcit_tiny_12_p16_224", _XCIT, partial(_timm_xcit, "xcit_tiny_12_p16_224"), 64, (16, 80)),
    "xcit-nano-timm": Pair(
        "timm", "xcit_nano_12_p8_224", _XCIT, partial(_timm_xcit, "xcit_nano_12_p8_224"), 64, (16, 80)
    ),
    "dinov2-plain-timm": Pair(
        "timm", "vit_small_patch14_dinov2", _DINO, partial(_timm_dinov2, "vit_small_patch14_dinov2"), 56, (14, 70)
    ),
    "dinov2-registers-timm": Pair(
        "timm",
        "vit_small_patch14_reg4_dinov2",
        _DINO,
        partial(_timm_dinov2, "vit_small_patch14_reg4_dinov2"),
        56,
        (14, 70),
    ),
    "dinov2-swiglu-timm": Pair(
        "timm",
        "vit_giant_patch14_reg4_dinov2",
        _DINO,
        partial(_timm_dinov2, "vit_giant_patch14_reg4_dinov2"),
        56,
        (14, 70),
    ),
    "eva02-timm": Pair(
        "timm", "eva02_tiny_patch14_224", _EVA02, partial(_timm_eva02, "eva02_tiny_patch14_224"), 56, (14, 70)
    ),
    "eva02-split-timm": Pair(
        "timm", "eva02_base_patch14_448", _EVA02, partial(_timm_eva02, "eva02_base_patch14_448"), 56, (14, 70)
    ),
    "siglip-map-timm": Pair(
        "timm",
        "vit_base_patch16_siglip_224",
        _SIGLIP,
        partial(_timm_siglip, "vit_base_patch16_siglip_224"),
        64,
        (16, 80),
    ),
    "siglip-gap-timm": Pair(
        "timm",
        "vit_large_patch16_siglip_gap_512",
        _SIGLIP,
        partial(_timm_siglip, "vit_large_patch16_siglip_gap_512"),
        64,
        (16, 80),
    ),
    "crossvit-linear-timm": Pair(
        "timm", "crossvit_tiny_240", _CROSSVIT, partial(_timm_crossvit, "crossvit_tiny_240"), 240, (120, 360)
    ),
    "crossvit-dagger-timm": Pair(
        "timm", "crossvit_9_dagger_240", _CROSSVIT, partial(_timm_crossvit, "crossvit_9_dagger_240"), 240, (120, 360)
    ),
}
