"""Which library a Swin agrees with at which size, on maps that windows do not divide (table in models/swin.py)."""

import pytest
import torch
from small_peers import PAIRS, difference, logits

from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.weights.load import load_weights

# Maps of two stages: 14 x 28 then 7 x 14, so that one axis fits in a window of 7; its transpose; no multiple of 7.
WIDE, TALL, UNEVEN = (56, 112), (112, 56), (60, 116)
SMALL = (20, 116)  # 5 x 29 cells: an axis is shorter than a window


def pair_of(library: str, edge: str):
    """Return a library's Swin and ours with the same weights."""
    pair = PAIRS[f"swin-{library}"]
    peer, ours = pair.peer(), pair.ours(edge=edge)
    load_weights(ours, peer.state_dict())
    return peer, ours


def apart(peer, ours, size) -> float:
    images = torch.randn(2, 3, *size)
    return difference(logits(ours, images), logits(peer, images))


@pytest.mark.parametrize("size", [WIDE, TALL, UNEVEN, SMALL], ids=str)
def test_official_edges_are_torchvisions_at_every_size(size):
    assert apart(*pair_of("torchvision", "official"), size) <= 1e-5


@pytest.mark.parametrize("size", [WIDE, TALL, UNEVEN], ids=str)
def test_timm_edges_are_timms_where_no_map_is_shorter_than_a_window(size):
    peer, ours = pair_of("timm", "timm")
    peer.set_input_size(img_size=size, window_size=7)
    assert apart(peer, ours, size) <= 1e-5


@pytest.mark.parametrize("edge", ["official", "timm", "masked"])
@pytest.mark.parametrize("size", [WIDE, TALL], ids=str)
def test_all_edges_agree_on_multiples_of_the_window(edge, size):
    assert apart(*pair_of("torchvision", edge), size) <= 1e-5


def test_official_edges_are_hugging_faces_unless_one_axis_alone_fits_in_a_window():
    for size in [(56, 56), UNEVEN, (112, 116)]:
        assert apart(*pair_of("huggingface", "official"), size) <= 1e-5


@pytest.mark.parametrize("size", [WIDE, TALL], ids=str)
def test_hugging_face_drops_both_shifts_where_one_axis_fits_in_a_window(size):
    """And that is the whole of the difference: without the shift that it drops we answer as it does."""
    peer, ours = pair_of("huggingface", "official")
    assert apart(peer, ours, size) > 1e-4
    for block in ours.backbone.stages[1].blocks:
        assert isinstance(block.token_mixer, WindowAttention)
        block.token_mixer.shift = 0
    assert apart(peer, ours, size) <= 1e-5


def test_hugging_face_does_not_take_maps_shorter_than_a_window():
    peer, ours = pair_of("huggingface", "official")
    assert logits(ours, torch.randn(1, 3, *SMALL)).isfinite().all()
    with pytest.raises(RuntimeError, match="size of tensor"):
        logits(peer, torch.randn(1, 3, *SMALL))
