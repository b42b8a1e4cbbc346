"""Same weights in, same logits out: every family against every library that has it, and back, bit for bit."""

import pytest
import torch
from small_peers import PAIRS, Pair, difference, logits

from vitrail.errors import VitrailError
from vitrail.models import create_model, family_of
from vitrail.weights.detect import detect
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights

HUGGINGFACE = {name: pair for name, pair in PAIRS.items() if pair.format == "huggingface"}
OTHERS = {name: pair for name, pair in PAIRS.items() if pair.format != "huggingface"}


def libraries_of(name: str) -> list[str]:
    """Return the libraries that have the architecture of a pair."""
    return {
        "vit": ["timm", "torchvision", "huggingface", "official"],
        "deit": ["timm", "huggingface", "official"],
        "swin": ["timm", "torchvision", "huggingface", "official", "mmpretrain"],
        "swin_v2": ["timm", "torchvision", "huggingface", "official"],
        "swin_v2_moved": ["timm", "huggingface", "official"],  # torchvision has no window of pre-training
        "nest": ["timm"],
        "nest_same": ["timm"],
        "twins_pcpvt": ["timm"],
        "twins_svt": ["timm"],
        "pvt": ["huggingface", "official"],
        "pvt_v2": ["timm", "huggingface", "official"],
        "pvt_v2_linear": ["timm", "huggingface", "official"],
        "poolformer": ["timm", "huggingface", "official"],
        "convnext": ["timm", "torchvision", "huggingface", "official"],
        "resnet": ["torchvision", "huggingface"],
        "convnextv2": ["timm", "huggingface", "official"],
        "caformer": ["timm", "official"],
        "convformer": ["timm", "official"],
        "poolformerv2": ["timm", "official"],
        "mixer": ["timm", "official"],
        "bit": ["timm", "huggingface", "official"],
        "hybrid": ["timm", "official"],
        "cait": ["timm", "official"],
        "crossvit": ["timm"],
        "siglip": ["timm"],
        "dinov2": ["timm"],
        "eva02": ["timm"],
        "convit": ["timm"],
        "xcit": ["timm"],
        "tnt": ["timm"] if "legacy" in name else ["timm", "official"],
    }[name.split("-")[0]]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_same_weights_same_logits(pair: Pair):
    peer, ours = pair.peer(), pair.ours()
    report = load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, pair.size, pair.size)
    assert not report.adapted and not report.kept
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5


SIZED = [(name, size) for name, pair in PAIRS.items() for size in pair.others]


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_same_logits_at_other_sizes(name: str, size: int):
    peer, ours = PAIRS[name].peer(size), PAIRS[name].ours(image_size=size)
    load_weights(ours, peer.state_dict())
    images = torch.randn(2, 3, size, size)
    assert difference(logits(ours, images), logits(peer, images)) <= 1e-5


@pytest.mark.parametrize("pair", list(OTHERS.values()), ids=OTHERS)
def test_there_and_back_gives_the_peers_own_state_dict(pair: Pair):
    peer, ours = pair.peer(), pair.ours()
    load_weights(ours, peer.state_dict())
    written = write_as(pair.format, family_of(pair.variant), ours.state_dict(), ours.config)
    peer.load_state_dict(written, strict=True)
    for key, value in pair.peer().state_dict().items():
        assert written[key].shape == value.shape
    again = pair.ours()
    load_weights(again, written)
    assert_identical(again.state_dict(), ours.state_dict())


@pytest.mark.parametrize("pair", list(HUGGINGFACE.values()), ids=HUGGINGFACE)
def test_huggingface_reads_the_file_that_we_write(pair: Pair, tmp_path):
    from safetensors.torch import load_file, save_file

    peer, ours = pair.peer(), pair.ours()
    load_weights(ours, peer.state_dict())
    peer.save_pretrained(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    written = write_as(pair.format, family_of(pair.variant), ours.state_dict(), ours.config)
    assert_identical(written, theirs)

    save_file(
        {key: value.contiguous() for key, value in written.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    loaded = type(peer).from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, pair.size, pair.size)
    assert torch.equal(logits(loaded, images), logits(peer, images))


@pytest.mark.parametrize(("library", "name"), [(one, name) for name in PAIRS for one in libraries_of(name)])
def test_every_format_is_recognised_and_read_back_bit_for_bit(library: str, name: str):
    model = PAIRS[name].ours()
    family, ours = family_of(model.variant), model.state_dict()
    theirs = write_as(library, family, ours, model.config)
    found = detect(theirs)
    tensors = found.format.read(theirs, model.config).tensors
    read = {key.replace("backbone.norm.", norm_place(ours)): value for key, value in tensors.items()}
    assert not found.mapped.unexpected and not found.mapped.incomplete
    assert family in found.format.families
    assert_identical(read, ours)


def norm_place(ours) -> str:
    """Return where a model of ours has its last norm."""
    return "head.pool.norm." if "head.pool.norm.weight" in ours else "backbone.norm."


def assert_identical(got, expected):
    """Compare two state dicts: keys, shapes, every bit."""
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(got[key], value), key


def test_timm_is_refused_where_its_model_with_these_tensors_mixes_otherwise():
    model = create_model("identityformer_s12", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
    with pytest.raises(VitrailError, match="timm has no MetaFormer with identity mixing"):
        write_as("timm", "metaformer", model.state_dict(), model.config)
