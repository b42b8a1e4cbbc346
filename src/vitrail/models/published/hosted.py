"""Public weights of the variants: repository on the Hugging Face hub, licence, classes.

Revisions are not listed: they are resolved at the first download and kept (`weights.pretrained`). The tests compare
each entry of timm with the installed package.
"""

from typing import NamedTuple


class Hosted(NamedTuple):
    """Public weights of a variant.

    Args:
        hub: repository on the hub, without a revision.
        licence: SPDX identifier that the repository names.
        classes: number of classes of the head; 0 without a head; None for text.
    """

    hub: str
    licence: str
    classes: int | None


_TIMM: dict[tuple[str, str, int], str] = {
    ("augreg_in21k_ft_in1k", "apache-2.0", 1000): (
        "vit_tiny_patch16_224 vit_tiny_patch16_384 vit_small_patch32_224 vit_small_patch32_384 "
        "vit_small_patch16_224 vit_small_patch16_384 vit_base_patch32_224 vit_base_patch32_384 vit_base_patch16_224 "
        "vit_base_patch16_384 vit_base_patch8_224 vit_large_patch16_224 vit_large_patch16_384 vit_tiny_r_s16_p8_224 "
        "vit_tiny_r_s16_p8_384 vit_small_r26_s32_224 vit_small_r26_s32_384 vit_large_r50_s32_224 "
        "vit_large_r50_s32_384"
    ),
    ("dino", "apache-2.0", 0): ("vit_small_patch8_224"),
    ("orig_in21k", "apache-2.0", 0): ("vit_large_patch32_224 vit_huge_patch14_224 vit_base_r50_s16_224"),
    ("orig_in21k_ft_in1k", "apache-2.0", 1000): ("vit_large_patch32_384 vit_base_r50_s16_384"),
    ("fb_in1k", "apache-2.0", 1000): (
        "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224 deit_base_patch16_384 "
        "deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224 deit_base_distilled_patch16_224 "
        "deit_base_distilled_patch16_384 convnext_tiny convnext_small convnext_base convnext_large convit_tiny "
        "convit_small convit_base xcit_nano_12_p16_224 xcit_tiny_12_p16_224 xcit_small_12_p16_224 "
        "xcit_tiny_24_p16_224 xcit_small_24_p16_224 xcit_medium_24_p16_224 xcit_large_24_p16_224 "
        "xcit_nano_12_p8_224 xcit_tiny_12_p8_224 xcit_small_12_p8_224 xcit_tiny_24_p8_224 xcit_small_24_p8_224 "
        "xcit_medium_24_p8_224 xcit_large_24_p8_224"
    ),
    ("ms_in1k", "mit", 1000): (
        "swin_tiny_patch4_window7_224 swin_small_patch4_window7_224 swin_base_patch4_window7_224 "
        "swin_base_patch4_window12_384 swinv2_tiny_window8_256 swinv2_tiny_window16_256 swinv2_small_window8_256 "
        "swinv2_small_window16_256 swinv2_base_window8_256 swinv2_base_window16_256"
    ),
    ("ms_in22k_ft_in1k", "mit", 1000): (
        "swin_large_patch4_window7_224 swin_large_patch4_window12_384 swinv2_base_window12to16_192to256 "
        "swinv2_base_window12to24_192to384 swinv2_large_window12to16_192to256 swinv2_large_window12to24_192to384"
    ),
    ("mim_in22k", "mit", 0): (
        "eva02_tiny_patch14_224 eva02_small_patch14_224 eva02_base_patch14_224 eva02_large_patch14_224"
    ),
    ("mim_in22k_ft_in1k", "mit", 1000): (
        "eva02_tiny_patch14_336 eva02_small_patch14_336 eva02_base_patch14_448 eva02_large_patch14_448"
    ),
    ("a1h_in1k", "apache-2.0", 1000): ("halonet26t halonet50ts"),
    ("goog_in1k", "apache-2.0", 1000): ("nest_tiny_jx nest_small_jx nest_base_jx"),
    ("in1k", "apache-2.0", 1000): (
        "pvt_v2_b0 pvt_v2_b1 pvt_v2_b2 pvt_v2_b2_li pvt_v2_b3 pvt_v2_b4 pvt_v2_b5 twins_pcpvt_small "
        "twins_pcpvt_base twins_pcpvt_large twins_svt_small twins_svt_base twins_svt_large tnt_s_legacy_patch16_224 "
        "tnt_s_patch16_224 tnt_b_patch16_224 crossvit_tiny_240 crossvit_small_240 crossvit_base_240 crossvit_9_240 "
        "crossvit_15_240 crossvit_18_240 crossvit_9_dagger_240 crossvit_15_dagger_240 crossvit_15_dagger_408 "
        "crossvit_18_dagger_240 crossvit_18_dagger_408"
    ),
    ("sail_in1k", "apache-2.0", 1000): (
        "poolformer_s12 poolformer_s24 poolformer_s36 poolformer_m36 poolformer_m48 caformer_s18 caformer_s36 "
        "caformer_m36 caformer_b36 convformer_s18 convformer_s36 convformer_m36 convformer_b36 poolformerv2_s12 "
        "poolformerv2_s24 poolformerv2_s36 poolformerv2_m36 poolformerv2_m48"
    ),
    ("d2_in1k", "apache-2.0", 1000): ("convnext_atto"),
    ("d1_in1k", "apache-2.0", 1000): ("convnext_femto convnext_pico"),
    ("d1h_in1k", "apache-2.0", 1000): ("convnext_nano"),
    ("fb_in22k_ft_in1k", "apache-2.0", 1000): ("convnext_xlarge"),
    ("fcmae_ft_in1k", "cc-by-nc-4.0", 1000): (
        "convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano convnextv2_tiny convnextv2_base "
        "convnextv2_large convnextv2_huge"
    ),
    ("tv_in1k", "bsd-3-clause", 1000): ("resnet50 resnet101 resnet152"),
    ("c1_in1k", "apache-2.0", 1000): ("botnet26t_256"),
    ("goog_in21k_ft_in1k", "apache-2.0", 1000): (
        "mixer_b16_224 mixer_l16_224 resnetv2_50x1_bit resnetv2_50x3_bit resnetv2_101x1_bit resnetv2_101x3_bit "
        "resnetv2_152x2_bit resnetv2_152x4_bit"
    ),
    ("fb_dist_in1k", "apache-2.0", 1000): (
        "cait_xxs24_224 cait_xxs24_384 cait_xxs36_224 cait_xxs36_384 cait_xs24_384 cait_s24_224 cait_s24_384 "
        "cait_s36_384 cait_m36_384 cait_m48_448 xcit_nano_12_p16_384 xcit_tiny_12_p16_384 xcit_small_12_p16_384 "
        "xcit_tiny_24_p16_384 xcit_small_24_p16_384 xcit_medium_24_p16_384 xcit_large_24_p16_384 "
        "xcit_nano_12_p8_384 xcit_tiny_12_p8_384 xcit_small_12_p8_384 xcit_tiny_24_p8_384 xcit_small_24_p8_384 "
        "xcit_medium_24_p8_384 xcit_large_24_p8_384"
    ),
    ("lvd142m", "apache-2.0", 0): (
        "vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2 vit_giant_patch14_dinov2 "
        "vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2 vit_large_patch14_reg4_dinov2 "
        "vit_giant_patch14_reg4_dinov2"
    ),
    ("v2_webli", "apache-2.0", 0): (
        "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 "
        "vit_base_patch16_siglip_512 vit_large_patch16_siglip_256 vit_large_patch16_siglip_384 "
        "vit_large_patch16_siglip_512 vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 "
        "vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384 "
        "vit_base_patch16_siglip_gap_512 vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384 "
        "vit_large_patch16_siglip_gap_512 vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378"
    ),
}
"""Variants by timm's tag, licence and classes; the repository is `timm/NAME.TAG`."""

_OTHERS: dict[str, Hosted] = {
    **{
        f"{kind}_{size}": Hosted(f"shi-labs/{kind}-{size}-in1k-224", "mit", 1000)
        for kind in ("nat", "dinat")
        for size in ("mini", "tiny", "small", "base")
    },
    "dinat_large": Hosted("shi-labs/dinat-large-in22k-in1k-224", "mit", 1000),
    "dinat_large_384": Hosted("shi-labs/dinat-large-in22k-in1k-384", "mit", 1000),
    "dinat_large_384_11x11": Hosted("shi-labs/dinat-large-11x11-in22k-in1k-384", "mit", 1000),
    **{f"imagegpt_{size}": Hosted(f"openai/imagegpt-{size}", "apache-2.0", 0) for size in ("small", "medium", "large")},
    **{
        f"perceiver_io_{kind}": Hosted(f"deepmind/vision-perceiver-{kind}", "apache-2.0", 1000)
        for kind in ("learned", "fourier", "conv")
    },
    **{
        f"bert_{size}_{case}": Hosted(f"google-bert/bert-{size}-{case}", "apache-2.0", None)
        for size in ("base", "large")
        for case in ("uncased", "cased")
    },
    **{
        f"albert_{size}_v2": Hosted(f"albert/albert-{size}-v2", "apache-2.0", None)
        for size in ("base", "large", "xlarge", "xxlarge")
    },
    **{
        "gpt2" + size.replace("-", "_"): Hosted(f"openai-community/gpt2{size}", "mit", None)
        for size in ("", "-medium", "-large", "-xl")
    },
    "openai_gpt": Hosted("openai-community/openai-gpt", "mit", None),
    "distilgpt2": Hosted("distilbert/distilgpt2", "apache-2.0", None),
    "minilm_l12_h384_uncased": Hosted("microsoft/MiniLM-L12-H384-uncased", "mit", None),
    "all_minilm_l6_v2": Hosted("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", None),
    "all_minilm_l12_v2": Hosted("sentence-transformers/all-MiniLM-L12-v2", "apache-2.0", None),
    "opus_mt_en_de": Hosted("Helsinki-NLP/opus-mt-en-de", "cc-by-4.0", None),
}
"""Variants of transformers' architectures, from the repositories of their authors."""

HOSTED: dict[str, Hosted] = {
    name: Hosted(f"timm/{name}.{tag}", licence, classes)
    for (tag, licence, classes), names in _TIMM.items()
    for name in names.split()
} | _OTHERS
