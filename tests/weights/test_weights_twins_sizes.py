"""Twins with timm's weights at other multiples of 32, off the grids of windows and reductions too."""

import pytest
import torch
from small_peers import PAIRS, difference, logits

from vitrail.weights.load import load_weights


@pytest.mark.parametrize("name", ["twins_pcpvt-timm", "twins_svt-timm"])
@pytest.mark.parametrize("size", [(96, 64), (64, 160), (32, 224)], ids=str)
def test_twins_at_other_sizes(name, size):
    peer, ours = PAIRS[name].peer(), PAIRS[name].ours()
    load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, *size)
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5
