"""UperNet: the logits of Hugging Face, the keys of mmsegmentation and of the authors of Swin, the published sizes."""

from typing import Any

import pytest
import torch
from small_peers import difference

from vitrail.errors import VitrailError
from vitrail.models import create_model, make_config
from vitrail.weights.formats import FORMATS, write_as
from vitrail.weights.load import load_weights

STAGES = ["stage1", "stage2", "stage3", "stage4"]
HEAD = {
    "num_labels": 5,
    "hidden_size": 16,
    "auxiliary_channels": 8,
    "auxiliary_in_channels": None,
    "pool_scales": [1, 2],
}
OURS: dict[str, Any] = {
    "channels": 16, "auxiliary_channels": 8, "pool_scales": (1, 2), "num_classes": 5, "image_size": 128
}  # fmt: skip
SWIN = {"dim": 8, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": 3, "edge": "shifted"}
CONVNEXT = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)}


def ours(kind: str) -> Any:
    if kind == "swin":
        return create_model("upernet_swin_tiny", backbone_config=SWIN, **OURS).eval()
    return create_model("upernet_convnext_tiny", backbone_config=CONVNEXT, **OURS).eval()


def peer(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    if kind == "swin":
        backbone = transformers.SwinConfig(
            image_size=128, embed_dim=8, depths=[1, 1, 2, 2], num_heads=[1, 2, 2, 4], window_size=3, out_features=STAGES
        )
    else:
        backbone = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=STAGES)
    model = transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(backbone_config=backbone, **HEAD))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer) * 0.5)
    return model.eval()


@pytest.mark.parametrize("kind", ["swin", "convnext"])
@pytest.mark.parametrize("size", [(128, 128), (160, 224), (96, 64)])
def test_same_weights_same_logits_as_hugging_face(kind: str, size: tuple[int, int]) -> None:
    theirs, model = peer(kind), ours(kind)
    report = load_weights(model, theirs.state_dict())
    assert report.format in ("huggingface", "transformers") and not (report.missing or report.adapted or report.kept)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert difference(model(images), theirs(images).logits) < 1e-5
        features = theirs.backbone(images).feature_maps
        assert difference(model.head.both(model.backbone(images))[1], theirs.auxiliary_head(features)) < 1e-5


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_hugging_face_reads_the_file_that_we_write(kind: str) -> None:
    theirs, model = peer(kind), ours(kind)
    written = write_as("huggingface", "upernet", model.state_dict(), model.config)
    if kind == "convnext":
        theirs.load_state_dict(written)
    else:  # saved names are those of earlier versions, which from_pretrained renames
        old = {key.replace("attention.self.query", "attention.q_proj") for key in written}
        assert any("q_proj" in key for key in old)
        again = ours(kind)
        load_weights(again, written)
        images = torch.randn(1, 3, 128, 128)
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("library", ["mmsegmentation", "official", "huggingface"])
def test_every_format_is_recognised_and_read_back_bit_for_bit(library: str) -> None:
    model = ours("swin")
    written = write_as(library, "upernet", model.state_dict(), model.config)
    again = ours("swin")
    assert load_weights(again, written).format == library
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_mmsegmentation_merges_patches_in_the_order_of_unfold() -> None:
    model = ours("swin")
    mm = write_as("mmsegmentation", "upernet", model.state_dict(), model.config)
    official = write_as("official", "upernet", model.state_dict(), model.config)
    ordered, unfolded = (
        official["backbone.layers.0.downsample.reduction.weight"],
        mm["backbone.stages.0.downsample.reduction.weight"],
    )
    x = torch.randn(1, 8, 4, 6)
    places = torch.cat([x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)], 1)  # down before right
    theirs = torch.nn.functional.unfold(x, 2, stride=2)
    torch.testing.assert_close(
        torch.einsum("oc,bchw->bohw", ordered, places).flatten(2), torch.einsum("oc,bcn->bon", unfolded, theirs)
    )


def test_windows_of_the_published_models_are_always_shifted() -> None:
    """The last map of 96 x 96 pixels is one window; the classifier does not shift it, and its logits differ."""
    assert dict(make_config("upernet_swin_base").backbone_config)["edge"] == "shifted"
    model, other = ours("swin"), create_model("upernet_swin_tiny", backbone_config={**SWIN, "edge": "official"}, **OURS)
    other.load_state_dict(model.state_dict())
    for size, equal in ((96, False), (128, True)):
        images = torch.randn(1, 3, size, size)
        assert (difference(model(images), other.eval()(images)) < 1e-5) is equal
    small = create_model(
        "upernet_swin_tiny", backbone_config={**SWIN, "edge": "official"}, **{**OURS, "image_size": 96}
    )
    form = next(form for form in FORMATS if form.name == "huggingface" and "upernet" in form.families)
    assert form.describe is not None and form.describe(other.config)["model_type"] == "upernet"
    with pytest.raises(VitrailError, match="this one edge=official; at 96 pixels"):
        form.describe(small.config)


def test_a_classifier_fills_the_backbone_alone() -> None:
    model = ours("swin")
    classifier = create_model("swin_tiny_patch4_window7_224", num_classes=7, **SWIN)
    before = model.head.main.classifier.weight.clone()
    report = load_weights(model, classifier.state_dict())
    assert "backbone only: the decoder keeps its random weights" in str(report)
    key = "stages.2.blocks.1.token_mixer.qkv.weight"
    assert torch.equal(model.backbone.state_dict()[key], classifier.backbone.state_dict()[key])
    assert torch.equal(model.head.maps.norms[3].weight, classifier.backbone.norm.weight)
    assert torch.equal(model.head.main.classifier.weight, before)
    written = write_as("timm", "swin", classifier.state_dict(), classifier.config)
    with pytest.raises(VitrailError, match="does not fit convnext_tiny"):
        load_weights(ours("convnext"), written)


def test_other_classes_get_a_new_classifier() -> None:
    model, other = ours("swin"), create_model("upernet_swin_tiny", backbone_config=SWIN, **{**OURS, "num_classes": 3})
    report = load_weights(other, model.state_dict())
    assert "head.main.classifier.weight" in report.kept and not report.missing
    assert torch.equal(other.head.main.decoder.fuse.conv.weight, model.head.main.decoder.fuse.conv.weight)


@pytest.mark.parametrize(
    ("name", "dim", "depths", "heads", "unused"),
    [
        ("upernet_swin_tiny", 96, [2, 2, 6, 2], [3, 6, 12, 24], 1536),
        ("upernet_swin_base", 128, [2, 2, 18, 2], [4, 8, 16, 32], 2048),
    ],
)
def test_published_sizes(name: str, dim: int, depths: list[int], heads: list[int], unused: int) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.SwinConfig(embed_dim=dim, depths=depths, num_heads=heads, out_features=STAGES)
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=150, auxiliary_in_channels=None)
    with torch.device("meta"):
        theirs, model = transformers.UperNetForSemanticSegmentation(config), create_model(name)
    count, want = (sum(p.numel() for p in each.parameters()) for each in (model, theirs))
    assert count == want - unused  # Hugging Face's last norm, which nothing reads


def test_the_formats_are_listed() -> None:
    assert {one.name for one in FORMATS if "upernet" in one.families} >= {"huggingface", "mmsegmentation", "official"}
