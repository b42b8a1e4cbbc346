"""DeepViT in the authors' names, which no installed library has."""

import torch

from vitrail.models import create_model
from vitrail.weights.detect import detect
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights

SMALL = dict(depth=2, dim=24, num_heads=3, num_classes=5, image_size=32)


def test_names_and_shapes_are_the_authors():
    model = create_model("deepvit_patch16_224_re_attn_16b", **SMALL)
    written = write_as("official", "deepvit", model.state_dict(), model.config)
    assert written["blocks.1.attn.reatten_matrix.weight"].shape == (3, 3, 1, 1)
    assert written["blocks.1.attn.var_norm.running_var"].shape == (3,)
    assert written["blocks.0.attn.qkv.bias"].shape == (72,)


def test_a_round_trip_is_bit_exact():
    model, other = (create_model("deepvit_patch16_224_re_attn_16b", **SMALL).eval() for _ in range(2))
    written = write_as("official", "deepvit", model.state_dict(), model.config)
    assert detect(written).format.families == ("deepvit",)
    load_weights(other, written)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), other(images))
