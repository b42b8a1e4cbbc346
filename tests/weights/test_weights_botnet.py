"""BoTNet: timm's model with the same weights, and its attention against loops."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention, RelativeLogits
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


def pair(size: int) -> tuple[nn.Module, nn.Module]:
    timm = pytest.importorskip("timm")
    peer = timm.create_model("botnet26t_256", num_classes=5, img_size=size).eval()
    with torch.no_grad():
        for tensor in [*peer.parameters(), *(b for b in peer.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand_like(tensor) * 0.02)
    return peer, create_model("botnet26t_256", num_classes=5, image_size=size).eval()


@pytest.mark.parametrize("size", [64, 96, 128])
def test_same_weights_same_logits(size):
    peer, ours = pair(size)
    report = load_weights(ours, peer.state_dict())
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        want, got = peer(images), ours(images)
    assert not report.adapted and not report.kept
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_there_and_back_gives_the_peers_own_state_dict():
    peer, ours = pair(64)
    load_weights(ours, peer.state_dict())
    written, theirs = write_as("timm", "botnet", ours.state_dict(), ours.config), peer.state_dict()
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_attention_against_a_loop(size):
    grid, position = Grid(*size), RelativeLogits(3, (5, 4), scale=0.7)
    m = BottleneckAttention(6, 2, position).double()
    x = torch.randn(2, grid.tokens, 6, dtype=torch.double, requires_grad=True)
    q, k, v = m.qkv(x).unflatten(-1, (3, 2, 3)).unbind(2)  # (B, N, h, d)
    rows = []
    for i in range(grid.tokens):
        heads = []
        for h in range(2):
            scores = []
            for j in range(grid.tokens):
                dy, dx = j // grid.w - i // grid.w, j % grid.w - i % grid.w
                place = position.rows[dy + 4] + position.columns[dx + 3]
                scores.append((q[:, i, h] * k[:, j, h]).sum(-1) / 3**0.5 + 0.7 * q[:, i, h] @ place)
            weights = torch.stack(scores, dim=-1).softmax(-1)
            heads.append((weights[..., None] * v[:, :, h]).sum(1))
        rows.append(torch.cat(heads, dim=-1))
    got, want, inputs = m(x, grid), torch.stack(rows, dim=1), [x, *m.parameters()]
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)


def test_a_map_without_positions_is_refused():
    model = create_model("botnet26t_256", dim=16, image_size=64).eval()
    assert model.features(torch.zeros(1, 3, 40, 64)).grid == Grid(2, 2)  # an odd map: 3 x 4 cells before the last stage
    with pytest.raises(VitrailError, match="positions for a map of 4 x 4 cells and the image gives 5 x 5"):
        model(torch.zeros(1, 3, 80, 80))
