"""Exported programs on images below the coarsest stride: padding and resizing are in the program, not decided by it."""

import re
from itertools import product

import onnx
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from vitrail.errors import VitrailError
from vitrail.export.formats import write_program
from vitrail.export.program import ExportFailed, Program, _export, export_program
from vitrail.export.runtime import open_runtime
from vitrail.export.traced_sizes import compare_by_traced_sizes
from vitrail.export.verify import compare, verify
from vitrail.models import create_model
from vitrail.parts.decoders.resize import resize_map
from vitrail.tasks.program import ProgramSpec, TensorSpec, image_axes

pytestmark = pytest.mark.filterwarnings("ignore")
PVT = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
SWIN = {"dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
BACKBONES = {
    "segformer_b0": ("pvt_v2_b0", PVT),
    "fpn_segmenter": ("pvt_v2_b0", PVT),
    "upernet": ("swin_tiny_patch4_window7_224", SWIN),
}
SMALL = ((1, 1), (3, 5), (10, 10), (64, 16), (16, 70), (28, 64), (29, 64), (45, 50))
IMAGES, LOGITS = TensorSpec("images", ("batch", 3, "height", "width")), TensorSpec("logits", ("batch", 3), classes=1)


def segmenter(name):
    backbone, fields = BACKBONES[name]
    wide = {"auxiliary_channels": 8} if name == "upernet" else {}
    model = create_model(
        name, backbone=backbone, backbone_config=tuple(fields.items()), channels=8, image_size=64, num_classes=3, **wide
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("upernet", "fpn_segmenter")]


@pytest.mark.parametrize("name", ["segformer_b0", *SLOW])
def test_segmenters_pad_small_images_in_the_program(name):
    model = segmenter(name)
    program = export_program(model, "any")
    run = program.exported.module(check_guards=False)
    for height, width in SMALL:
        images = torch.randn(2, 3, height, width)
        with torch.no_grad():
            error, same = compare(run(images), model(images), LOGITS)
        assert error < 1e-4 and same, (height, width)
    small = [each.sizes for each in verify(lambda inputs: (run(*inputs),), program)[8:]]
    assert small == [(1, 3, 64), (1, 17, 5)]


class Resized(nn.Module):
    def forward(self, cells, like):
        return resize_map(cells, like.shape[2:])


def test_maps_of_one_size_in_the_trace_are_resized_at_other_sizes():
    shape = torch.export.Dim.DYNAMIC
    with compare_by_traced_sizes():
        cells = torch.zeros(1, 2, 6, 7), torch.zeros(1, 1, 6, 7)
        program = torch.export.export(Resized(), cells, dynamic_shapes=({2: shape, 3: shape},) * 2)
    cells, like = torch.randn(1, 2, 3, 5), torch.zeros(1, 1, 8, 9)
    assert torch.equal(program.module(check_guards=False)(cells, like), resize_map(cells, (8, 9)))


class Branching(nn.Module):
    """Zeros around a small image, by a branch that a trace decides."""

    def forward(self, images):
        low = min(images.shape[2:]) < 16
        return (pad(images, (4, 4, 4, 4)) if low else images).mean((2, 3))


class Particular(nn.Module):
    """A model that refuses small images."""

    def forward(self, images):
        if min(images.shape[2:]) < 8:
            raise VitrailError("The image is too small.")
        return images.mean((2, 3))


def spec(module):
    return ProgramSpec(module, (IMAGES,), (LOGITS,), image_axes(32))


def test_a_branch_on_the_size_is_found_by_a_small_image():
    with pytest.raises(ExportFailed, match="at 3 x 32 its outputs differ"):
        _export(spec(Branching()), Branching(), True)


def test_sizes_that_a_model_refuses_are_not_tried():
    assert spec(Particular()).small_sizes() == []
    assert [tuple(each.values()) for each in spec(Branching()).small_sizes()] == [(1, 3, 32), (1, 17, 5)]
    _export(spec(Particular()), Particular(), True)


class CeilPools(nn.Module):
    """Poolings whose last window may be incomplete, and one with padding and a stride below its kernel."""

    def forward(self, images):
        padded = max_pool2d(images, 3, 2, 1)
        averaged = avg_pool2d(padded, 3, 2, 1, count_include_pad=False)
        return max_pool2d(images, (2, 3), ceil_mode=True), avg_pool2d(images, 2, ceil_mode=True), padded, averaged


def test_poolings_of_incomplete_windows_have_no_rounding_up(tmp_path):
    """OpenVINO refuses a rounded-up pooling of fewer cells than the kernel, so the last cells are repeated instead."""
    outputs = tuple(
        TensorSpec(name, ("batch", 3, f"{name} height", f"{name} width"))
        for name in ("most", "mean", "padded", "averaged")
    )
    spec = ProgramSpec(CeilPools(), (IMAGES,), outputs, image_axes(32))
    written = write_program(Program(_export(spec, CeilPools(), True), spec, True, ""), "onnx", tmp_path / "m.onnx", {})
    nodes = onnx.load(str(written[0])).graph.node
    assert [each.i for node in nodes for each in node.attribute if each.name == "ceil_mode"] == [0] * 4
    run = open_runtime("onnx", written[0])
    for height, width in product((1, 2, 3, 7), (1, 4, 5, 6)):
        images = torch.randn(2, 3, height, width)
        for got, want in zip(run((images,)), CeilPools()(images), strict=True):
            assert torch.equal(got, want) or torch.allclose(got, want, rtol=1e-6, atol=1e-7), (height, width)


def test_the_reason_of_a_fixed_size_has_numbers():
    """The error of a traced model would name the symbols of the trace."""
    model = create_model("imagegpt_small", dim=16, depth=1, num_heads=2, image_size=8, num_classes=3).eval()
    assert "8 x 8" in (reason := export_program(model).reason) and re.search(r"got \d+ x \d+", reason), reason
