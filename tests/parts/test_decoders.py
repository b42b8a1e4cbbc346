"""Decoders of segmentation: slow twins, any size, and every head on backbones of every kind."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.decoders.conv_norm_act import MapBatchNorm
from vitrail.parts.decoders.light import FPNDecoder, MLPDecoder
from vitrail.parts.decoders.resize import resize_map, upsample_and_crop
from vitrail.parts.decoders.upernet import PyramidPooling, UperNetDecoder

BACKBONES = {
    "window": ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (1, 1, 1), "num_heads": (1, 2, 4)}),
    "global": ("xcit_nano_12_p16_224", {"depth": 1, "dim": 24, "num_heads": 3}),
    "spatial reduction": (
        "pvt_v2_b0",
        {"dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2), "sr_ratios": (4, 1), "mlp_ratios": (2.0, 2.0)},
    ),
    "neighborhood": ("nat_mini", {"dim": 8, "depths": (1, 1), "num_heads": (1, 2)}),
    "pooling": ("poolformer_s12", {"dims": (8, 16), "depths": (1, 1)}),
    "mlp": ("mixer_s32_224", {"depth": 1, "dim": 16, "patch_size": 16}),
    "convolutional": ("convnext_atto", {"dims": (8, 16, 24), "depths": (1, 1, 1)}),
    "vit": ("vit_tiny_patch16_224", {"depth": 1, "dim": 24, "num_heads": 3}),
    "resnet": ("resnet50", {"dim": 8, "depths": (1, 1, 1)}),
}
HEADS = {"upernet": {"auxiliary_channels": 8, "pool_scales": (1, 2)}, "segformer": {}, "fpn_segmenter": {}}


def segmenter(head: str, backbone: str, **more):
    name, numbers = BACKBONES[backbone]
    fields = {"channels": 12, "num_classes": 5, "image_size": 64, **HEADS[head], **more}
    return create_model(head, backbone=name, backbone_config={**numbers, "drop_path": 0.0}, **fields)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_on_backbones_of_every_kind(head, backbone):
    model = segmenter(head, backbone)
    images = torch.randn(2, 3, 64, 64)
    logits, auxiliary = model.both(images)
    assert logits.shape == (2, 5, 64, 64)
    assert (auxiliary is None) == (head != "upernet")
    total = logits.square().sum() + (0 if auxiliary is None else auxiliary.square().sum())
    total.backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert [key for key in silent if not key.endswith(("qkv.bias", "kv.bias"))] == []
    model.eval()
    alone = torch.cat([model(each[None]) for each in images])
    torch.testing.assert_close(alone, model(images), atol=1e-4, rtol=1e-4)
    sizes = [(1, 1), (33, 70), (16, 200)] if backbone != "mlp" else []
    for size in sizes:
        assert model(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_a_mixer_takes_its_own_size_alone():
    with pytest.raises(VitrailError, match="image_size"):
        segmenter("upernet", "mlp").eval()(torch.zeros(1, 3, 96, 64))


def slow_resize(cells: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Interpolate each pixel from its four neighbours."""
    out = torch.zeros(*cells.shape[:2], *size)
    (h, w), (tall, wide) = cells.shape[2:], size
    for i in range(tall):
        for j in range(wide):
            y, x = max((i + 0.5) * h / tall - 0.5, 0.0), max((j + 0.5) * w / wide - 0.5, 0.0)
            y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = cells[..., y0, x0] * (1 - (x - x0)) + cells[..., y0, x1] * (x - x0)
            low = cells[..., y1, x0] * (1 - (x - x0)) + cells[..., y1, x1] * (x - x0)
            out[..., i, j] = top * (1 - (y - y0)) + low * (y - y0)
    return out


def test_maps_are_resized_between_edges():
    cells = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(resize_map(cells, (7, 5)), slow_resize(cells, (7, 5)))


def test_padding_is_cut_off_and_not_squeezed():
    ramp = torch.arange(16.0).reshape(1, 1, 1, 16).expand(1, 1, 2, 16)
    want = interpolate(ramp, size=(8, 64), mode="bilinear")[..., :7, :61]
    assert torch.equal(upsample_and_crop(ramp, 4, (7, 61)), want)


def test_pyramid_pooling_is_means_over_cells():
    part = PyramidPooling(3, 4, (2,)).eval()
    x = torch.randn(1, 3, 4, 6)
    means = torch.stack([x[..., i : i + 2, j : j + 3].mean((2, 3)) for i in (0, 2) for j in (0, 3)], -1)
    want = slow_resize(part.projections[0](means.reshape(1, 3, 2, 2)), (4, 6))
    torch.testing.assert_close(part(x), part.bottleneck(torch.cat([x, want], 1)), atol=1e-5, rtol=1e-4)


def test_upernet_is_a_top_down_sum_and_a_fusion():
    decoder = UperNetDecoder((3, 5, 6), 4, (1,)).eval()
    a, b, c = (torch.randn(1, *shape) for shape in ((3, 8, 12), (5, 4, 6), (6, 2, 3)))
    top = decoder.pooling(c)
    middle = decoder.lateral[1](b) + slow_resize(top, (4, 6))
    finest = decoder.lateral[0](a) + slow_resize(middle, (8, 12))
    levels = [decoder.smooth[0](finest), decoder.smooth[1](middle), top]
    want = decoder.fuse(torch.cat([slow_resize(each, (8, 12)) for each in levels], 1))
    torch.testing.assert_close(decoder([a, b, c]), want, atol=1e-5, rtol=1e-4)


def test_light_decoders():
    a, b = torch.randn(1, 3, 4, 6), torch.randn(1, 5, 2, 3)
    fpn = FPNDecoder((3, 5), 4).eval()
    want = fpn.smooth(fpn.lateral[0](a) + slow_resize(fpn.lateral[1](b), (4, 6)))
    torch.testing.assert_close(fpn([a, b]), want, atol=1e-5, rtol=1e-4)
    mlp = MLPDecoder((3, 5), 4).eval()
    ours = [layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for layer, x in zip(mlp.projections, (a, b), strict=True)]
    want = mlp.fuse(torch.cat([slow_resize(ours[1], (4, 6)), ours[0]], 1))
    torch.testing.assert_close(mlp([a, b]), want, atol=1e-5, rtol=1e-4)


def test_one_value_a_channel_has_no_variance():
    norm = MapBatchNorm(3)
    x = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
    assert torch.equal(norm.running_mean, torch.zeros(3))
    model = segmenter("upernet", "window")
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5, 64, 64)  # in training


def test_a_dense_model_is_normalised_as_its_backbone():
    assert segmenter("upernet", "vit").preprocess.mean == (0.5, 0.5, 0.5)
    assert segmenter("upernet", "window").preprocess.mean != (0.5, 0.5, 0.5)
    assert create_model("upernet").preprocess.mean == (0.5, 0.5, 0.5)
    assert isinstance(segmenter("segformer", "spatial reduction").head.maps.norms[0], nn.Identity)
    with pytest.raises(VitrailError, match="Unknown model 'swin'"):
        create_model("upernet", backbone="swin")
