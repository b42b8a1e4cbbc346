"""The authors' own files, judged by the readers that timm keeps for them."""

import numpy as np
import pytest
import torch
from small_peers import PAIRS, difference, logits

from vitrail.models import family_of
from vitrail.weights.convert import write_tensor_file
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


@pytest.mark.parametrize("name", ["vit-timm", "hybrid-r26-timm", "hybrid-root-timm", "bit-timm"])
def test_timm_reads_the_jax_file_that_we_write_and_we_do(name, tmp_path):
    pair, path = PAIRS[name], tmp_path / "official.npz"
    ours, peer = pair.ours(), pair.peer()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_tensor_file(path, write_as("official", family_of(pair.variant), ours.state_dict(), ours.config))
    prefix = "resnet/" if name.startswith("bit") else ""
    peer.load_pretrained(str(path), prefix=prefix)
    images = torch.randn(2, 3, pair.size, pair.size)
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5

    again = pair.ours()
    report = load_weights(again, path)
    assert report.format == "official"
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("name", ["swin-timm", "poolformer-timm"])
def test_timms_filter_makes_its_own_names_of_the_authors(name):
    from timm.models import metaformer, swin_transformer

    pair = PAIRS[name]
    ours, peer = pair.ours(), pair.peer()
    official = write_as("official", family_of(pair.variant), ours.state_dict(), ours.config)
    module = swin_transformer if name.startswith("swin") else metaformer
    filtered = module.checkpoint_filter_fn(dict(official), peer)
    expected = write_as("timm", family_of(pair.variant), ours.state_dict(), ours.config)
    assert filtered.keys() == expected.keys()
    assert all(torch.equal(filtered[key], value) for key, value in expected.items())


def test_stored_masks_and_indices_are_dropped():
    """The authors' Swin files carry buffers that depend on the training size; old timm files too."""
    pair = PAIRS["swin-timm"]
    ours = pair.ours()
    official = write_as("official", "swin", ours.state_dict(), ours.config)
    official["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    official["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    report = load_weights(pair.ours(), official)
    assert report.format == "official" and not report.unexpected and not report.missing


def test_jax_keys_are_the_papers(tmp_path):
    """Spelled out once, so that a slip in the table cannot hide in a round trip."""
    pair = PAIRS["vit-timm"]
    ours = pair.ours()
    written = write_as("official", "vit", ours.state_dict(), ours.config)
    assert written["embedding/kernel"].shape == (8, 8, 3, 32)
    assert written["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"].shape == (32, 2, 16)
    assert written["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias"].shape == (2, 16)
    assert written["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/out/kernel"].shape == (2, 16, 32)
    assert written["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"].shape == (32, 128)
    write_tensor_file(tmp_path / "a.npz", written)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(written)
