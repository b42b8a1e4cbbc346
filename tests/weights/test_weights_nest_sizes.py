"""NesT with timm's weights at other sizes: made for them, and what a position table becomes on the way."""

import pytest
import torch
from small_peers import NEST, PAIRS, Pair, difference, logits

from vitrail.weights.formats.nest import BlockTable
from vitrail.weights.load import load_weights


@pytest.mark.parametrize("size", [48, 80])
@pytest.mark.parametrize("name", ["nest-timm", "nest_same-timm"])
def test_nest_made_at_other_sizes(name, size):
    from timm.models.nest import Nest

    padding = {} if name == "nest-timm" else {"pad_type": "same"}
    numbers = {key: value for key, value in NEST.items() if key != "dims"}
    pair = Pair(
        "timm",
        PAIRS[name].variant,
        NEST,
        lambda: Nest(img_size=size, embed_dims=NEST["dims"], **numbers, **padding),
        size,
    )
    peer, ours = pair.peer(), pair.ours()
    load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, size, size)
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5


def test_a_table_by_block_is_read_row_by_row():
    rows = torch.arange(16.0).reshape(1, 4, 4)
    blocks = rows.unfold(1, 2, 2).unfold(2, 2, 2).reshape(1, 4, 4, 1)  # four blocks of four cells
    assert blocks[0, 0].flatten().tolist() == [0, 1, 4, 5]
    assert torch.equal(BlockTable().read(blocks)[0].flatten(), torch.arange(16.0))
