"""Window attention against a twin that tests each pair of cells."""

import pytest
import torch
from torch.autograd import gradcheck

from vitrail.grid import Grid
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import MaskedPadding, PadThenRoll, RollThenPad, tile

GRIDS = [(1, 1), (1, 7), (5, 9), (8, 8), (8, 13), (14, 14)]
CUTS = [PadThenRoll, RollThenPad, MaskedPadding]
every_cut = pytest.mark.parametrize("cut", CUTS)
every_grid = pytest.mark.parametrize("size", GRIDS)


def mixer_of(cut, window: int, shift: int, dim: int = 4, heads: int = 2) -> WindowAttention:
    mixer = WindowAttention(dim, heads, window, shift, cut=cut).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer


class Axis:
    """Where the places of one axis lie after padding and rolling, place by place."""

    def __init__(self, n: int, window: int, shift: int, cut):
        self.window = min(n, window) if cut is RollThenPad else window
        shift = 0 if n <= window else shift
        self.length = next(m for m in range(n, n + window) if m % self.window == 0)
        # Cell of the map (or padding: None) at cell i of the padded and rolled map.
        if cut is RollThenPad:
            source = [(i + shift) % n if i < n else None for i in range(self.length)]
        else:
            source = [(i + shift) % self.length for i in range(self.length)]
            source = [s if s < n else None for s in source]
        self.source = source
        # timm draws its regions on the padded length even though it rolled the length before padding.
        self.region = [
            (i >= self.length - self.window) * (shift > 0) + (i >= self.length - shift) for i in range(self.length)
        ]


def twin(mixer: WindowAttention, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Compute window attention of one image `(N, C)`, query by query."""
    rows = Axis(grid.h, mixer.window_size, mixer.shift, mixer.cut)
    columns = Axis(grid.w, mixer.window_size, mixer.shift, mixer.cut)
    places = [(y, x) for y in range(rows.length) for x in range(columns.length)]
    cell = {
        p: None if None in (a := (rows.source[p[0]], columns.source[p[1]])) else a[0] * grid.w + a[1] for p in places
    }
    dim, heads = x.shape[1], mixer.num_heads
    q, k, v = {}, {}, {}
    for p in places:
        token = x[cell[p]] if cell[p] is not None else x.new_zeros(dim)
        q[p], k[p], v[p] = mixer.qkv(token).view(3, heads, dim // heads)
    out = torch.zeros_like(x)
    for p in places:
        if cell[p] is None:
            continue
        seen = [
            o
            for o in places
            if all(a // r.window == b // r.window for a, b, r in zip(p, o, (rows, columns), strict=True))
        ]
        if mixer.cut is MaskedPadding:
            seen = [o for o in seen if cell[o] is not None]
        scores = torch.stack([score(mixer, p, o, q, k, rows, columns) for o in seen])  # (keys, heads)
        mixed = torch.einsum("kh,khd->hd", scores.softmax(dim=0), torch.stack([v[o] for o in seen]))
        out[cell[p]] = mixer.proj(mixed.flatten())
    return out


def score(mixer, p, o, q, k, rows, columns) -> torch.Tensor:
    side = mixer.window_size
    dy, dx = p[0] - o[0], p[1] - o[1]
    bias = mixer.position.table[(dy + side - 1) * (2 * side - 1) + dx + side - 1]
    same = rows.region[p[0]] == rows.region[o[0]] and columns.region[p[1]] == columns.region[o[1]]
    apart = 0.0 if same else -torch.inf if mixer.cut is MaskedPadding else -100.0
    return (q[p] * k[o]).sum(dim=1) / q[p].shape[1] ** 0.5 + bias + apart


@every_cut
@every_grid
@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (7, 3)])
def test_against_the_twin(cut, size, window, shift):
    grid = Grid(*size)
    mixer = mixer_of(cut, window, shift)
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double)
    with torch.no_grad():
        got = mixer(x, grid)
        for i in range(2):
            torch.testing.assert_close(got[i], twin(mixer, x[i], grid), rtol=1e-9, atol=1e-9)


@every_grid
@pytest.mark.parametrize("shift", [0, 2])
def test_masked_edges_do_not_depend_on_how_much_padding_there_is(size, shift):
    class MorePadding(MaskedPadding):
        @property
        def padded(self):
            h, w = super().padded
            return h + 4, w + 8

    grid = Grid(*size)
    mixer = mixer_of(MaskedPadding, 4, shift)
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double)
    want = mixer(x, grid)
    mixer.cut = MorePadding
    torch.testing.assert_close(mixer(x, grid), want)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("cut", [PadThenRoll, RollThenPad, MaskedPadding])
def test_only_masked_edges_do_not_depend_on_what_the_padding_holds(cut, shift):
    mixer, grid = mixer_of(cut, 4, shift), Grid(5, 9)
    x = torch.randn(1, grid.tokens, 4, dtype=torch.double)
    want = mixer(x, grid)
    mixer.attend.register_forward_pre_hook(lambda _, args: (args[0], args[1] - 9.0, *args[2:]))
    assert torch.allclose(mixer(x, grid), want) == (cut is MaskedPadding)


@pytest.mark.parametrize("shift", [0, 2])
def test_all_edges_agree_where_there_are_none(shift):
    grid, x = Grid(8, 12), torch.randn(2, 96, 4, dtype=torch.double)
    mixer = mixer_of(PadThenRoll, 4, shift)
    answers = []
    for mixer.cut in CUTS:
        answers.append(mixer(x, grid))
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[2], answers[0])


@every_cut
@every_grid
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_joining_undoes_splitting(cut, size, shift):
    cells = torch.randn(2, *size, 3)
    a_cut = cut.of(Grid(*size), window=4, shift=shift)
    assert torch.equal(a_cut.join(a_cut.split(cells)), cells)


@every_cut
@every_grid
def test_slots_name_each_cell_once_and_where_split_puts_it(cut, size):
    grid = Grid(*size)
    a_cut = cut.of(grid, window=4, shift=2)
    token_index = a_cut.token_index()
    assert sorted(token_index[token_index >= 0].tolist()) == list(range(grid.tokens))
    windows = a_cut.split(torch.arange(1.0, grid.tokens + 1).view(1, *size, 1))[0, ..., 0]
    assert torch.equal(windows, token_index + 1.0)


@every_cut
@every_grid
@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (3, 1)])
def test_windows_of_one_kind_keep_the_same_pairs_apart(cut, size, window, shift):
    """Against regions numbered cell by cell, with more padding than necessary too."""

    class MorePadding(cut):
        @property
        def padded(self):
            h, w = super().padded
            return h + 2 * self.window[0], w + self.window[1]

    for kind in (cut, MorePadding):
        a_cut = kind.of(Grid(*size), window, shift)
        like = torch.zeros(())
        regions = tile(a_cut._labels(like)[None, ..., None], a_cut.window)[0, ..., 0]
        apart = regions[:, :, None] != regions[:, None, :]
        mask = a_cut.bias_plus_mask(None, like)
        mask = torch.zeros(1, 1, *apart.shape[1:]) if mask is None else mask
        mask_index = a_cut.mask_index()
        assert mask_index.unique().tolist() == list(range(len(mask)))
        assert torch.equal(mask[mask_index][:, 0] != 0, apart) or not a_cut.needs_mask
        bias = torch.randn(2, *apart.shape[1:])
        dense = bias + torch.zeros(()).masked_fill(apart, a_cut.mask_value)[:, None] if a_cut.needs_mask else bias
        assert torch.equal(a_cut.separate(bias, like), dense)


def test_rotary_positions_change_the_output():
    class Turning(NoPosition):
        def rotate(self, q, k, grid):
            return q.flip(-1), -k

    mixer, grid = mixer_of(PadThenRoll, 4, 2), Grid(8, 8)
    x = torch.randn(1, 64, 4, dtype=torch.double)
    mixer.position = Turning()
    turned = mixer(x, grid)
    with torch.no_grad():
        for rows in (slice(0, 2), slice(2, 4)):  # the queries of each head
            mixer.qkv.weight[rows] = mixer.qkv.weight[rows].flip(0).clone()
            mixer.qkv.bias[rows] = mixer.qkv.bias[rows].flip(0).clone()
        mixer.qkv.weight[4:8] *= -1
        mixer.qkv.bias[4:8] *= -1
    mixer.position = NoPosition()
    torch.testing.assert_close(mixer(x, grid), turned)


@every_cut
def test_gradients(cut):
    mixer, grid = mixer_of(cut, window=2, shift=1, dim=2, heads=1), Grid(3, 4)
    x = torch.randn(1, 12, 2, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda x, *_: mixer(x, grid), (x, *mixer.parameters()))
