"""Preprocessing of a transformers folder: the pixels are those of its processor, or its field is refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError
from vitrail.preprocess import _FIXED, _KNOWN_STEPS, Preprocess, from_processor, to_processor

transformers = pytest.importorskip("transformers")

SIZES = [(280, 180), (96, 200), (200, 200)]  # width and height


def smooth(width: int, height: int) -> Image.Image:
    """Draw an image whose resized pixels depend little on the rounding of a filter."""
    y, x = np.mgrid[:height, :width] / 40
    planes = [np.sin(x + k) * np.cos(y * (k + 1) / 2) for k in range(3)]
    return Image.fromarray((127 + 120 * np.stack(planes, -1)).astype(np.uint8))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_rescale": False}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
        ("DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("PvtImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
    ],
)
def test_pixels_are_those_of_the_processor(kind, fields, tmp_path):
    processor = getattr(transformers, kind)(**fields)
    ours = EvalTransform(from_processor(processor.to_dict()))
    scale = float(1 / min(ours.preprocess.std))  # of one in 0..1
    for size in SIZES:
        image = smooth(*size)
        theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
        assert theirs.shape == ours(image).shape
        # Filters round otherwise in torchvision than in Pillow, and an odd border is cut one pixel further up or left;
        # a squeeze instead of a crop differs by 0.2 and more.
        assert (theirs - ours(image)).abs().max() / scale < 0.06


def test_lanczos_is_read():
    assert (
        from_processor({"size": 32, "resample": 1, "image_mean": [0.5], "image_std": [0.5]}).interpolation == "lanczos"
    )
    transform = EvalTransform(Preprocess(32, 1.0, "lanczos"))
    assert torch.isfinite(transform(smooth(60, 40))).all()


@pytest.mark.parametrize(
    "field", [{"do_resize": False}, {"do_color_quantize": True}, {"do_pad": True}, {"do_new": True}]
)
def test_a_step_that_is_not_supported_is_refused_by_name(field):
    with pytest.raises(DataError, match=next(iter(field))):
        from_processor({"size": 32, "image_mean": [0.5], "image_std": [0.5], **field})


def test_oblong_sizes_are_refused():
    with pytest.raises(DataError, match="not square"):
        from_processor({"size": {"height": 32, "width": 64}, "image_mean": [0.5], "image_std": [0.5]})


def test_squash_is_kept_in_a_model_folder():
    squash = Preprocess(32, 0.875, crop_mode="squash")
    assert from_processor(to_processor(squash)) == squash
    assert Preprocess.from_dict(squash.to_dict()) == squash
    assert "crop_mode" not in Preprocess().to_dict()


READ = {"size", "crop_size", "crop_pct", "resample", "rescale_factor", "image_mean", "image_std"}
IDLE = {"image_processor_type", "do_convert_rgb", "do_normalize", "do_rescale", "do_center_crop", "size_divisor"}


def test_every_field_of_the_processors_is_known():
    kinds = ["ViT", "DeiT", "Bit", "ConvNext", "Pvt", "Perceiver", "CLIP", "Siglip", "ImageGPT"]
    fields = {name for kind in kinds for name in getattr(transformers, f"{kind}ImageProcessor")().to_dict()}
    assert fields <= READ | IDLE | set(_FIXED) | _KNOWN_STEPS
