"""iGPT: Hugging Face's ImageGPT with the same weights, and weights that were really trained on MNIST."""

import gzip

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.parts.attend import Attend
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.color_tokens import ColorTokens
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


def pair(size: int) -> tuple[nn.Module, nn.Module]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ImageGPTConfig(
        vocab_size=28, n_positions=size * size, n_embd=16, n_layer=2, n_head=2, num_labels=5
    )
    peer = transformers.ImageGPTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    numbers = dict(dim=16, depth=2, num_heads=2, colors=27, num_classes=5, image_size=size)
    return peer, create_model("imagegpt_small", **numbers).eval()


@pytest.mark.parametrize("size", [8, 5, 11])
def test_same_weights_same_logits(size):
    peer, ours = pair(size)
    report = load_weights(ours, peer.state_dict())
    assert list(report.kept) == ["backbone.embedding.patches.clusters"] and not report.adapted
    images = torch.rand(2, 3, size, size) * 2 - 1
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
    ids = torch.cdist(pixels, ours.backbone.embedding.patches.clusters.expand(2, -1, -1)).argmin(-1)
    with torch.no_grad():
        want, got = peer(input_ids=ids).logits, ours(images)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_there_and_back_gives_the_peers_own_state_dict():
    peer, ours = pair(8)
    load_weights(ours, peer.state_dict())
    written = write_as("huggingface", "igpt", ours.state_dict(), ours.config)
    theirs = peer.state_dict()
    assert written.keys() == theirs.keys()
    assert all(torch.equal(written[key], value) for key, value in theirs.items())


def test_causal_attention_sees_no_later_pixel():
    ours = pair(4)[1].backbone
    images = torch.rand(1, 3, 4, 4)
    changed = images.clone()
    changed[:, :, 2, 1:] = -1.0
    changed[:, :, 3] = -1.0
    a, b = ours(images).tokens, ours(changed).tokens
    assert torch.equal(a[:, :9], b[:, :9]) and not torch.equal(a[:, 9:], b[:, 9:])


class TrainedBlock(nn.Module):
    """The block of these weights, which normalises the residual stream itself before attention."""

    def __init__(self, dim: int, attend: Attend):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mixer, self.channel_mixer = SelfAttention(dim, 2, attend=attend), MLP(dim, 4 * dim)

    def forward(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        x = self.norm1(x)
        x = x + self.token_mixer(x, grid)
        return x + self.channel_mixer(self.norm2(x), grid)


def trained_block(state: dict, layer: int, attend: Attend) -> TrainedBlock:
    names = {
        "ln_1.": "norm1.",
        "ln_2.": "norm2.",
        "attn.in_proj_": "token_mixer.qkv.",
        "attn.out_proj.": "token_mixer.proj.",
        "mlp.0.": "channel_mixer.fc1.",
        "mlp.2.": "channel_mixer.fc2.",
    }
    theirs, ours = f"gpt.layers.{layer}.", TrainedBlock(16, attend)
    ours.load_state_dict(
        {new + kind: state[theirs + old + kind] for old, new in names.items() for kind in ("weight", "bias")}
    )
    return ours


def nats_a_pixel(state: dict, images: torch.Tensor, attend: Attend) -> float:
    """Return the mean negative log-likelihood of the next color over all pixels."""
    colors = ColorTokens(1, 16, 16, Grid(28, 28))
    colors.clusters.copy_(state["centroids"])
    ids = colors.quantise(images).flatten(1)
    tokens = state["gpt.token_embeddings.weight"][ids]
    x = torch.cat([state["gpt.sos"].expand(len(ids), 1, -1), tokens[:, :-1]], dim=1)
    x = x + state["gpt.position_embeddings.weight"]
    for layer in range(8):
        x = trained_block(state, layer, attend)(x, Grid(28, 28))
    x = nn.functional.layer_norm(x, (16,), state["gpt.ln_f.weight"], state["gpt.ln_f.bias"])
    return cross_entropy((x @ state["gpt.head.weight"].T).flatten(0, 1), ids.flatten()).item()


@pytest.mark.shared
@torch.no_grad()
def test_trained_weights_predict_mnist_at_0_30_nats_a_pixel(shared):
    digits = np.frombuffer(gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8)
    images = torch.tensor(digits[16:].reshape(-1, 1, 28, 28)[:200].copy()) / 255
    mnist, fashion = (
        torch.load(shared / f"weights/igpt_xxs_{name}_gen_state_dict.pt", weights_only=True)
        for name in ("mnist", "fmnist")
    )
    assert nats_a_pixel(mnist, images, CausalAttend()) == pytest.approx(0.30, abs=0.02)
    assert nats_a_pixel(fashion, images[:50], CausalAttend()) > 0.4  # weights of other images predict digits worse
    assert nats_a_pixel(mnist, images[:50], Attend()) > 0.35  # they were trained with a causal mask
