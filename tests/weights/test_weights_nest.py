"""Conversion of timm's NesT tensors: position tables by block, and projections with the heads last."""

import torch
from small_peers import NEST

from vitrail.models import make_config
from vitrail.weights.formats.nest import BlockTable, HeadsLast


def test_a_table_by_block_is_read_row_by_row():
    rows = torch.arange(16.0).reshape(1, 4, 4)
    blocks = rows.unfold(1, 2, 2).unfold(2, 2, 2).reshape(1, 4, 4, 1)  # four blocks of four cells
    assert blocks[0, 0].flatten().tolist() == [0, 1, 4, 5]
    assert torch.equal(BlockTable().read(blocks)[0].flatten(), torch.arange(16.0))


def test_a_projection_is_reordered_for_the_heads_of_its_width():
    config = make_config("nest_tiny", **NEST)
    weight = torch.arange(16.0).expand(16, 16)  # two heads of eight channels: d0h0, d0h1, d1h0, ...
    read = HeadsLast().read_with(weight, config=config)[0]
    assert read[0].tolist() == [*range(0, 16, 2), *range(1, 16, 2)]
    assert torch.equal(HeadsLast().write(read, config=config)[0], weight)
