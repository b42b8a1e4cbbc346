"""HaloNet: timm's models with the same weights, and their own state dicts back."""

import pytest
import torch
from torch import nn

from vitrail.models import create_model
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    timm = pytest.importorskip("timm")
    peer = timm.create_model(name, num_classes=5).eval()
    with torch.no_grad():
        for tensor in [*peer.parameters(), *(b for b in peer.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand_like(tensor) * 0.02)
    return peer, create_model(name, num_classes=5).eval()


@pytest.mark.parametrize("name", ["halonet26t", "halonet50ts"])
def test_same_weights_same_logits(name):
    peer, ours = pair(name)
    report = load_weights(ours, peer.state_dict())
    assert not report.adapted and not report.kept
    for size in [(256, 256), (512, 256)]:  # the peer takes multiples of 256: blocks of 8 cells in the last stage
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            want, got = peer(images), ours(images)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("name", ["halonet26t", "halonet50ts"])
def test_there_and_back_gives_the_peers_own_state_dict(name):
    peer, ours = pair(name)
    load_weights(ours, peer.state_dict())
    written, theirs = write_as("timm", "halonet", ours.state_dict(), ours.config), peer.state_dict()
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], value) for key, value in theirs.items())
