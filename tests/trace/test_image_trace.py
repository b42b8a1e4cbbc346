"""Traces of image models: every number of a page is that of a tensor of the pass, and every cost is counted once."""

import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from PIL import Image
from small_models import SMALL, small
from torch import nn

from vitrail.inference.flops import count_macs
from vitrail.models import create_model
from vitrail.parts.attend import Attend
from vitrail.trace.arrays import pack, unpack
from vitrail.trace.example import example_image
from vitrail.trace.image_trace import trace_image
from vitrail.trace.page import page_data, render
from vitrail.trace.record import record

KINDS = ["vit", "swin official", "nat", "pvt", "resnet", "mixer", "tnt", "deepvit", "halonet", "poolformer", "vmoe"]
"""One model for each kind of description; the others are traced in the slow tests (not the 4,096 pixels of iGPT)."""
MODELS = [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in SMALL if name != "igpt"]


@cache
def traced(name):
    torch.manual_seed(0)
    model = small(name)
    return model, trace_image(model, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("name", MODELS)
def test_every_array_is_a_tensor_of_the_pass(name):
    trace = traced(name)[1]
    calls = list(trace.calls.walk())
    maps = [
        call.module.maps(*(each for i, each in enumerate(call.module.operands(*call.args)) if i != 2))
        for call in calls
        if isinstance(call.module, Attend)
    ]
    probabilities = torch.cat([each.detach().flatten() for each in maps]).sort().values if maps else torch.zeros(1)
    shown = {view["kind"] for frame in trace.frames for view in frame.views}
    assert shown & {"heat", "attention"}
    for frame in trace.frames:
        for view in frame.views:
            if view["kind"] == "heat" and view["label"] == "length of each vector after the block":
                path, step = _block(frame.path), view["step"]
                norms = [each for call in calls if call.path.startswith(path) for each in _norms(call, view["grid"])]
                assert any(torch.equal(unpack(view["values"]), each[::step, ::step]) for each in norms)
            if view["kind"] == "attention" and "cosine" not in view["label"] and "mean" not in view["label"]:
                values = unpack(view["values"]).flatten()
                nearest = probabilities[torch.searchsorted(probabilities, values).clamp(max=len(probabilities) - 1)]
                assert torch.equal(nearest, values) or "before" in view["label"]


def _block(path):
    parts = path.split(".")
    return ".".join(parts[: parts.index("blocks") + 2])


def _norms(call, grid):
    h, w, prefix = grid
    tensors = call.output if isinstance(call.output, tuple) else (call.output,)
    return [
        x[0, prefix:].norm(dim=-1).unflatten(0, (h, w))
        for x in tensors
        if isinstance(x, torch.Tensor) and x.ndim == 3 and x.shape[1] == prefix + h * w
    ]


@pytest.mark.parametrize("name", MODELS)
def test_frames_count_every_weight_and_product_once(name):
    model, trace = traced(name)
    assert sum(frame.parameters for frame in trace.frames) == sum(each.numel() for each in model.parameters())
    assert sum(frame.multiply_adds for frame in trace.frames) == count_macs(model, 64)
    assert all(frame.formulas for frame in trace.frames)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "tnt"])
def test_last_layer_of_the_logit_lens_is_the_output(name):
    trace = traced(name)[1]
    logits, answer = unpack(trace.lens["logits"]), trace.calls.output[0]
    assert len(logits) >= 1
    torch.testing.assert_close(logits[-1], answer.topk(5).values, rtol=1e-5, atol=1e-5)
    assert trace.lens["own"][-1][0] == f"class {answer.argmax()}"


def test_twins_agree():
    for name in ("vit", "swin masked", "nat"):
        for twin in traced(name)[1].twins:
            assert twin["difference"] <= 1e-5 * twin["scale"]
            assert twin["loop"] is None or twin["loop"] <= 1e-5 * twin["scale"]


def test_patch_frame_puts_the_numbers_in():
    model = create_model("swin_tiny_patch4_window7_224", depths=(1,), num_heads=(3,), num_classes=7)
    trace = trace_image(model.eval(), example_image())
    first = trace.frames[0]
    assert first.formulas[0] == "N = (224/4)·(224/4) = 56·56 = 3136 tokens of 96"
    assert (first.shape_in, first.shape_out, first.parameters) == ([1, 3, 224, 224], [1, 3136, 96], 4896)
    attention = next(frame for frame in trace.frames if frame.title.startswith("Attention"))
    assert "Ω(W-MSA) = 4hwC² + 2M²·hw·C = 4·3136·96² + 2·49·3136·96 = 145.1 M" in attention.formulas


def test_module_custom():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.scale, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.features(x).mean((2, 3)) * self.scale)

    model = Own()
    trace = trace_image(model, Image.new("RGB", (40, 30), (200, 30, 30)))
    titles = [frame.title for frame in trace.frames]
    assert titles == ["Conv2d", "BatchNorm2d", "ReLU", "Head", "Own: between its parts"]
    assert sum(frame.parameters for frame in trace.frames) == sum(each.numel() for each in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("swinir_light_x2", {"depths": (2,), "num_heads": 2, "dim": 8}),
        pytest.param("segformer_b0", {"num_classes": 3}, marks=pytest.mark.slow),
        pytest.param("faster_rcnn_resnet50", {}, marks=pytest.mark.slow),
    ],
)
def test_models_of_other_tasks(name, overrides):
    model = create_model(name, **overrides).eval()
    trace = trace_image(model, torch.rand(1, 3, 32, 32))
    assert sum(frame.parameters for frame in trace.frames) == sum(each.numel() for each in model.parameters())
    assert any(view["kind"] in ("attention", "heat") for frame in trace.frames for view in frame.views)


def test_page_is_one_file_without_a_network():
    trace = traced("swin official")[1]
    page = render(replace(trace, model="</script><b>"))
    assert len(page) < 3_000_000
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "</script><b>" not in page
    assert page.count("<script") == 2
    assert len(page_data(trace)["frames"]) == page.count('<td><a href="#')


def test_record_of_a_failing_pass_removes_its_hooks():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).train()
    with pytest.raises(RuntimeError):
        record(model, torch.zeros(1, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.training


@pytest.mark.parametrize("values", [torch.tensor([1e-7, -3.0]), torch.tensor([1, 40000]), torch.tensor([True, False])])
def test_pack_is_exact(values):
    assert torch.equal(unpack(pack(values)).to(values.dtype), values)
