"""Counting: equal to sums done by hand, to the ledger for every family, and never silently nothing."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.inference.flops import count_macs, count_parameters
from vitrail.models import create_model, make_config
from vitrail.models.published import PUBLISHED

ONE_OF_EACH = [
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "poolformer_s12",
    "mixer_s32_224",
    "resnetv2_50x1_bit",
]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_is_counted_as_published(name):
    assert count_parameters(name) == PUBLISHED[name].parameters
    assert round(count_macs(name) / 1e9, 3) == PUBLISHED[name].gmacs


def test_a_vit_block_by_hand():
    model = create_model("vit_tiny_patch16_224", depth=1, num_classes=10, image_size=32)
    n, c = 5, 192
    patches, qkv_out, mlp, attention = 4 * 768 * c, n * c * 4 * c, n * c * 8 * c, 2 * n * n * c
    assert count_macs(model) == patches + qkv_out + mlp + attention + c * 10


def test_counting_leaves_the_model_as_it_was():
    model = create_model("vit_tiny_patch16_224", depth=1).train()
    before = [p.clone() for p in model.parameters()]
    count_macs(model, size=(32, 48))
    assert model.training and all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert count_macs(model, 64) > count_macs(model, (32, 48)) > count_macs(model, 32)


def test_an_operator_that_nobody_can_count_stops_the_count():
    class Cumulative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = make_config("vit_tiny_patch16_224")

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.vector_norm(images) + torch.cdist(images, images).sum()

    with pytest.raises(VitrailError, match="nobody said what 'aten"):
        count_macs(Cumulative())
