"""Frames of a shifted window block against loops over cells."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import MaskedPadding, PadThenRoll, RollThenPad
from vitrail.trace.arrays import unpack
from vitrail.trace.counts import Counts
from vitrail.trace.record import record
from vitrail.trace.walk import Walk
from vitrail.trace.windows import laid_index, masks, regions, window_attention

CASES = [(cut, size) for cut in (PadThenRoll, RollThenPad, MaskedPadding) for size in ((8, 12), (7, 9), (4, 8))]


def naive_index(cut, h, w):
    """Tokens of the padded and rolled map, place by place."""
    ph, pw = cut.padded
    sh, sw = cut.shift
    index = torch.full((ph, pw), -1)
    for r in range(ph):
        for c in range(pw):
            if isinstance(cut, RollThenPad):  # rolled before it is padded
                if r < h and c < w:
                    index[r, c] = (r + sh) % h * w + (c + sw) % w
            else:
                y, x = (r + sh) % ph, (c + sw) % pw
                if y < h and x < w:
                    index[r, c] = y * w + x
    return index


def naive_apart(cut, index):
    """Pairs of places in each window that a shift brought together."""
    (ph, pw), (wh, ww), (sh, sw) = cut.padded, cut.window, cut.shift

    def part(place, length, window, shift):
        return 0 if place < length - window or not shift else 1 if place < length - shift else 2

    apart = []
    for top in range(0, ph, wh):
        for left in range(0, pw, ww):
            places = [(top + i, left + j) for i in range(wh) for j in range(ww)]
            labels = [
                -1
                if isinstance(cut, MaskedPadding) and index[r, c] < 0
                else 3 * part(r, ph, wh, sh) + part(c, pw, ww, sw)
                for r, c in places
            ]
            apart.append([[a != b for b in labels] for a in labels])
    return torch.tensor(apart)


@pytest.mark.parametrize(("cut", "size"), CASES)
def test_roll_regions_and_mask_against_loops(cut, size):
    torch.manual_seed(0)
    grid, mixer = Grid(*size), WindowAttention(8, 2, window_size=4, shift=2, cut=cut)
    x = torch.randn(1, grid.tokens, 8)
    root = record(mixer, x, grid)
    made = cut.of(grid, 4, 2)
    attend = next(call for call in root.children if call.path == "attend")
    _, _, bias, mask_index, token_index = attend.args

    index = laid_index(made, token_index)
    assert torch.equal(index, naive_index(made, *size))

    apart = naive_apart(made, index)
    mask = masks(made, x)
    assert mask is not None
    assert torch.equal(mask[mask_index] < 0, apart)
    assert torch.equal(bias, mixer.position.bias(x, Grid(*made.window)) + mask[:, None])

    labels = regions(made, index)
    tiles = labels.unflatten(1, (-1, made.window[1])).unflatten(0, (-1, made.window[0])).transpose(1, 2)
    tiles = tiles.flatten(0, 1).flatten(1)
    assert torch.equal(tiles[:, :, None] != tiles[:, None, :], apart)

    walk = Walk(root, (size[0] * 4, size[1] * 4), Counts(mixer, root), {})
    frames = list(window_attention(walk, root))
    titles = [frame.title for frame in frames]
    assert titles[-3:] == ["Relative position index", "Attention, SW-MSA", "Reverse and project"]
    table = unpack(next(f for f in frames if f.title.startswith("Relative")).views[0]["table"])
    assert torch.equal(table.flatten(1).T, mixer.position.table)
    shown = next(f for f in frames if f.title == "Attention mask").views[0]
    assert torch.equal(unpack(shown["values"]).bool(), mask < 0)
    roll = next(f for f in frames if f.title == "Cyclic roll").views[0]
    assert torch.equal(unpack(roll["index"]).long(), index)
