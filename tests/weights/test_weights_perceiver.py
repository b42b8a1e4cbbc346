"""Perceiver IO: Hugging Face's three image classifiers with the same weights."""

import pytest
import torch
from torch import nn

from vitrail.models import create_model
from vitrail.weights.detect import detect
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights

PEERS = {
    "learned": ("PerceiverForImageClassificationLearned", 512),
    "fourier": ("PerceiverForImageClassificationFourier", 261),
    "conv": ("PerceiverForImageClassificationConvProcessing", 322),
}


def pair(inputs: str, size: int = 16) -> tuple[nn.Module, nn.Module]:
    transformers = pytest.importorskip("transformers")
    name, d_model = PEERS[inputs]
    config = transformers.PerceiverConfig(
        num_latents=6,
        d_latents=16,
        d_model=d_model,
        num_blocks=2,
        num_self_attends_per_block=2,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
        image_size=size,
        num_labels=5,
    )
    peer = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for tensor in [*peer.parameters(), *(b for b in peer.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand_like(tensor) * 0.1)
    numbers = dict(latents=6, dim=16, depth=2, repeats=2, num_heads=2, num_classes=5, image_size=size)
    return peer, create_model(f"perceiver_io_{inputs}", **numbers).eval()


@pytest.mark.parametrize("inputs", PEERS)
def test_same_weights_same_logits(inputs):
    for size in (16, 11, 24):
        peer, ours = pair(inputs, size)
        report = load_weights(ours, peer.state_dict())
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            want, got = peer(images).logits, ours(images)
        assert not report.adapted and not report.kept
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("inputs", PEERS)
def test_there_and_back_gives_the_peers_own_state_dict(inputs):
    peer, ours = pair(inputs)
    load_weights(ours, peer.state_dict())
    written = write_as("huggingface", "perceiver", ours.state_dict(), ours.config)
    theirs = peer.state_dict()
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], value) for key, value in theirs.items())
    assert not detect(written).mapped.unexpected


def test_images_that_are_not_square():
    peer, ours = pair("fourier")
    load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, 9, 14)
    with torch.no_grad():
        want, got = peer(images).logits, ours(images)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_without_positions_the_order_of_the_array_does_not_matter():
    from vitrail.parts.latents import CrossLayer

    layer, latents, array = CrossLayer(8, 5, 6, num_heads=2), torch.randn(2, 3, 8), torch.randn(2, 7, 5)
    order = torch.randperm(7)
    torch.testing.assert_close(layer(latents, array[:, order]), layer(latents, array))


def test_cross_layer_against_a_loop():
    from vitrail.parts.latents import CrossLayer

    m, x, array = CrossLayer(4, 5, 6, num_heads=2), torch.randn(1, 3, 4), torch.randn(1, 7, 5)
    q, keys = m.q(m.norm1(x))[0], m.kv(m.norm_array(array))[0]
    rows = []
    for n in range(3):
        heads = []
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            scores = torch.stack([q[n, part] @ keys[j, part] / 3**0.5 for j in range(7)]).softmax(0)
            heads.append(sum(scores[j] * keys[j, 6:][part] for j in range(7)))
        rows.append(m.proj(torch.cat(heads)))
    y = x + torch.stack(rows)
    torch.testing.assert_close(m(x, array), y + m.mlp.fc2(nn.functional.gelu(m.mlp.fc1(m.norm2(y)))))
