"""The model and the images of a study that explains: the user's, or a small ViT trained on the data set."""

from functools import lru_cache
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vitrail.data.transform import EvalTransform
from vitrail.inference.model_loading import find_model
from vitrail.parts.model import Model
from vitrail.study.images import load_images, resized
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.plan import StudyOptions
from vitrail.study.small_models import variant
from vitrail.tasks.data_url import encode
from vitrail.tasks.image_sources import find_images


class Examined(NamedTuple):
    """A model with the images to examine it on.

    Args:
        model: a classifier in evaluation mode.
        images: prepared images `(B, C, Y, X)`.
    """

    model: Model
    images: Tensor


@lru_cache(maxsize=2)
def examined(options: StudyOptions, seed: int) -> Examined:
    """Return the model of a seed and its images.

    A given model is the same for every seed, which takes its share of the images; else each seed trains a small ViT.

    Raises:
        VitrailError: the model or the images cannot be read.
    """
    if options.model is None:
        data = load_images(options.data, 24, options.pick(64, None))
        numbers = {"dim": options.pick(16, 48), "depth": options.pick(2, 4), "num_heads": 4}
        model = variant("vit_tiny_patch16_224", data, patch_size=3, mlp_ratio=2.0, drop_path=0.0, **numbers)
        learn(model, data, LearnSettings(steps=options.pick(4, 200)), seed)
        return Examined(model.eval(), data.test[: options.pick(2, 40)])
    model = find_model(options.model, options.weights, device="cpu")
    if options.data == "digits":
        images = resized(load_images("digits", 24).test[:30], model.preprocess.size)
        return Examined(model, images[seed :: options.seeds].expand(-1, model.config.in_channels, -1, -1))
    sources = find_images(options.data)[seed :: options.seeds]
    transform = EvalTransform(model.preprocess)
    return Examined(model, torch.stack([transform(source.read()) for source in sources]))


def thumbnail(image: Tensor, side: int = 112) -> str:
    """Return a prepared image as an HTML image, its values stretched to the range of grey or colour levels."""
    low, high = float(image.min()), float(image.max())
    levels = ((image - low) / ((high - low) or 1.0) * 255).byte().permute(1, 2, 0)
    drawn = Image.fromarray(levels[..., 0].numpy() if levels.shape[-1] == 1 else levels.numpy())
    return f'<img alt="image" src="{encode(drawn.convert("RGB").resize((side, side)))}">'
