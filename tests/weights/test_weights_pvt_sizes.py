"""PVT v2 with the same weights as its peers at other sizes, off the grid of reductions too."""

import pytest
import torch
from small_peers import PAIRS, difference, logits

from vitrail.errors import VitrailError
from vitrail.weights.formats import write_as
from vitrail.weights.formats.pvt import check_eps
from vitrail.weights.load import load_weights


@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith("pvt_v2")])
@pytest.mark.parametrize("size", [(64, 96), (50, 71)], ids=str)
def test_pvt_v2_at_other_sizes(name, size):
    peer, ours = PAIRS[name].peer(), PAIRS[name].ours()
    load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, *size)
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5


def test_transformers_is_not_given_another_epsilon():
    ours = PAIRS["pvt_v2-timm"].ours()
    assert write_as("huggingface", "pvt_v2", ours.state_dict(), ours.config)
    with pytest.raises(VitrailError, match=r"epsilon 1e-6(.|\n)*reduction_eps=1e-6"):
        check_eps(ours.config)
