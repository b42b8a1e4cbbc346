"""Small CNNs and Transformers of the catalogue, shifts of images, and features of given weights."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.inference.model_loading import find_model
from vitrail.study.images import StudyImages, resized
from vitrail.study.plan import StudyOptions

CNNS: dict[str, tuple[str, dict[str, Any]]] = {
    "BiT": ("resnetv2_50x1_bit", {"dim": 32, "depths": (1, 1)}),
    "ConvNeXt": ("convnext_tiny", {"dims": (32, 64), "depths": (2, 2), "drop_path": 0.0}),
}


TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", {"dim": 48, "depth": 4, "num_heads": 3, "patch_size": 4}),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "patch_size": 4, "drop_path": 0.0},
    ),
}


FAMILIES = CNNS | TRANSFORMERS


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Move images by pixels; their border is repeated."""
    height, width = images.shape[-2:]
    reach = max(abs(down), abs(right))
    wide = pad(images, (reach,) * 4, mode="replicate")
    return wide[..., reach - down : reach - down + height, reach - right : reach - right + width]


def probe(data: StudyImages, options: StudyOptions) -> float:
    """Return the accuracy of a logistic regression on frozen features of the given model."""
    from sklearn.linear_model import LogisticRegression

    model: Any = find_model(options.model or "", options.weights, device="cpu")

    def features(images: Tensor) -> Any:
        parts = images.split(16)
        with torch.no_grad():
            made = [resized(x, model.preprocess.size).expand(-1, model.config.in_channels, -1, -1) for x in parts]
            return torch.cat([model.features(x).tokens.mean(1) for x in made]).numpy()

    fitted = LogisticRegression(max_iter=2000).fit(features(data.train), data.train_labels.numpy())
    return float(fitted.score(features(data.test), data.test_labels.numpy()))
