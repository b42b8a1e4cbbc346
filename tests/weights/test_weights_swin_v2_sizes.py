"""Which library a Swin V2 agrees with at which size, and what moving to another window keeps."""

import pytest
import torch
from small_peers import PAIRS, Pair, difference, logits

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


def apart(pair: Pair, edge: str, size: tuple[int, int]) -> float:
    peer, ours = pair.peer(), pair.ours(edge=edge)
    load_weights(ours, peer.state_dict())
    if pair.format == "timm":
        peer.set_input_size(img_size=size, window_size=7)
    images = torch.randn(2, 3, *size)
    return difference(logits(ours, images), logits(peer, images))


@pytest.mark.parametrize("size", [(60, 116), (112, 116), (20, 116)], ids=str)
def test_official_edges_are_torchvisions_at_every_size(size):
    assert apart(PAIRS["swin_v2-torchvision"], "official", size) <= 1e-5


@pytest.mark.parametrize("size", [(60, 116), (112, 116)], ids=str)
def test_timm_edges_are_timms_if_no_map_is_shorter_than_a_window(size):
    assert apart(PAIRS["swin_v2_moved-timm"], "timm", size) <= 1e-5


@pytest.mark.parametrize("size", [112, 120])
def test_official_edges_are_hugging_faces_at_the_size_of_its_config(size):
    from transformers import Swinv2Config, Swinv2ForImageClassification

    config = Swinv2Config(image_size=size, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=7, num_labels=5)
    pair = Pair(
        "huggingface",
        "swinv2_tiny_window8_256",
        PAIRS["swin_v2-torchvision"].overrides,
        lambda: Swinv2ForImageClassification(config),
        size,
    )
    assert apart(pair, "official", (size, size)) <= 1e-5


def test_weights_move_to_another_window_without_a_change():
    source = PAIRS["swin_v2-torchvision"].ours()
    target = PAIRS["swin_v2-torchvision"].ours(window_size=14, image_size=112, pretrained_windows=(7, 7))
    report = load_weights(target, source.state_dict())
    assert not report.adapted and not report.kept
    old, new = (model.backbone.stages[0].blocks[0].token_mixer.position for model in (source, target))
    queries, grid = torch.zeros(1, 1, 49, 1), Grid(7, 7)
    torch.testing.assert_close(new.bias(queries, grid), old.bias(queries, grid))


def test_torchvision_is_not_given_windows_that_it_does_not_have():
    for fields in ({"pretrained_windows": (4, 3)}, {"image_size": 32}):
        ours = PAIRS["swin_v2-torchvision"].ours(**fields)
        with pytest.raises(VitrailError, match=r"one window for all stages(.|\n)*Write for timm"):
            write_as("torchvision", "swin_v2", ours.state_dict(), ours.config)
