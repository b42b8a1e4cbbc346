"""Models of other libraries with our weights: built from our config, loaded through the key maps of `weights/`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vitrail.bench.candidate import CandidateUnavailable, foreign, opened
from vitrail.models import family_of
from vitrail.parts.model import Model
from vitrail.weights.formats import FORMATS

TORCHVISION = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
    "vit_huge_patch14_224": "vit_h_14",
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
}

_SIZED = {  # timm builds these for one size of images
    *("vit", "vit_hybrid", "deit", "swin", "swin_v2", "nest", "mixer"),
    *("tnt", "cait", "convit", "crossvit", "dinov2", "siglip"),
}
_NAMES = {"timm": ("timm",), "torchvision": ("torchvision",), "huggingface": ("huggingface", "transformers")}


class LogitsOnly(nn.Module):
    """A Hugging Face classifier that returns plain logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.model(images).logits


def from_timm(model: Model, side: int, **changes: Any) -> nn.Module:
    """Return timm's model of the same variant, with the same weights; its fused attention is on, as by default.

    Args:
        model: our model.
        side: side of the images.
        changes: other arguments of `timm.create_model`.

    Raises:
        CandidateUnavailable: timm has no such model.
    """
    timm, name = opened("timm"), model.variant
    if not timm.is_model(name):
        raise CandidateUnavailable(f"timm has no {name}.")
    size = {"img_size": side} if family_of(name) in _SIZED else {}
    classes, channels = model.config.num_classes, model.config.in_channels
    with foreign(f"timm.create_model({name!r})"):
        peer = timm.create_model(name, False, num_classes=classes, in_chans=channels, **size, **changes)
    return filled(peer, model, "timm")


def from_torchvision(model: Model, side: int) -> nn.Module:
    """Return torchvision's model of the same variant, with the same weights.

    Raises:
        CandidateUnavailable: torchvision has no such model.
    """
    if model.variant not in TORCHVISION:
        raise CandidateUnavailable(f"torchvision has no {model.variant}.")
    size = {"image_size": side} if family_of(model.variant) == "vit" else {}
    build = getattr(opened("torchvision").models, TORCHVISION[model.variant])
    with foreign(f"torchvision.models.{TORCHVISION[model.variant]}"):
        peer = build(num_classes=model.config.num_classes, **size)
    return filled(peer, model, "torchvision")


def from_huggingface(model: Model, side: int) -> nn.Module:
    """Return the model of the same variant in transformers, with the same weights and PyTorch's fused attention.

    Raises:
        CandidateUnavailable: transformers has no such model.
    """
    transformers, family = opened("transformers"), family_of(model.variant)
    if family not in HUGGINGFACE:
        raise CandidateUnavailable(f"transformers has no {model.variant}.")
    kind, numbers = HUGGINGFACE[family](model.config, side)
    config_kind = kind.removesuffix("WithTeacher").removesuffix("ForImageClassification") + "Config"
    labels, channels = model.config.num_classes, model.config.in_channels
    with foreign(f"transformers.{kind}"):
        config = getattr(transformers, config_kind)(num_labels=labels, num_channels=channels, **numbers)
        peer = getattr(transformers, kind)(config)
        if getattr(peer, "_supports_sdpa", False):
            peer.set_attn_implementation("sdpa")
    return LogitsOnly(filled(peer, model, "huggingface"))


def filled(peer: nn.Module, model: Model, library: str) -> nn.Module:
    """Load our weights into a peer, on our device, in evaluation mode.

    Raises:
        CandidateUnavailable: no key map fills all of its parameters.
    """
    # The key maps have one position of the last norm; a PoolFormer with `pooling="timm"` has it after the pooling.
    state = {key.replace("head.pool.norm.", "backbone.norm."): value for key, value in model.state_dict().items()}
    family, wanted = family_of(model.variant), peer.state_dict()
    formats = [one for one in FORMATS if {*_NAMES[library]} & {*one.libraries} and family in one.families]
    written = [one.write(state, model.config).tensors for one in formats]
    if not written:
        raise CandidateUnavailable(f"no key map leads to {library}'s names for {family}.")
    theirs = max(written, key=lambda tensors: len(tensors.keys() & wanted.keys()))
    fitting = {key: value for key, value in theirs.items() if key in wanted and value.shape == wanted[key].shape}
    lacking = [key for key, _ in peer.named_parameters() if key not in fitting]
    if lacking:
        raise CandidateUnavailable(f"our weights do not fill {library}'s {lacking[0]} and {len(lacking) - 1} more.")
    peer.load_state_dict(fitting, strict=False)
    return peer.to(next(model.parameters()).device).eval()


def _vit(c: Any, side: int) -> tuple[str, dict[str, Any]]:
    numbers = dict(
        hidden_size=c.dim,
        num_hidden_layers=c.depth,
        num_attention_heads=c.num_heads,
        intermediate_size=int(c.dim * c.mlp_ratio),
        image_size=side,
        patch_size=c.patch_size,
        layer_norm_eps=1e-6,  # the published weights were not trained with its default, 1e-12
    )
    teacher = getattr(c, "distilled", False)
    return "DeiTForImageClassificationWithTeacher" if teacher else "ViTForImageClassification", numbers


def _swin(c: Any, side: int) -> tuple[str, dict[str, Any]]:
    numbers = dict(embed_dim=c.dim, depths=list(c.depths), num_heads=list(c.num_heads), window_size=c.window_size)
    return "SwinForImageClassification", {**numbers, "image_size": side}


def _poolformer(c: Any, side: int) -> tuple[str, dict[str, Any]]:
    numbers = dict(hidden_sizes=list(c.dims), depths=list(c.depths), layer_scale_init_value=c.layer_scale)
    return "PoolFormerForImageClassification", numbers


def _bit(c: Any, side: int) -> tuple[str, dict[str, Any]]:
    return "BitForImageClassification", dict(depths=list(c.depths), width_factor=c.dim // 64)


Numbers = Callable[[Any, int], tuple[str, dict[str, Any]]]

HUGGINGFACE: dict[str, Numbers] = {"vit": _vit, "deit": _vit, "swin": _swin, "poolformer": _poolformer, "bit": _bit}
"""For each family that transformers has: the class, and the numbers of its config."""

PEERS: dict[str, Callable[[Any, int], nn.Module]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "huggingface": from_huggingface,
}
"""How to build the peer of a model of ours, by library."""
