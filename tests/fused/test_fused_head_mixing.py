"""Fused attention with layers over heads: the slow twin, models, and parts that it does not compute."""

from typing import Any

import pytest
import torch
from small_models import relative  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

import vitrail
from vitrail.fused.blocks import UnfusedBranch
from vitrail.fused.head_mixing import FusedHeadMixing
from vitrail.native.build import refusal
from vitrail.native.mixed_attention import HeadLayer, mixed_attention
from vitrail.parts.head_mixing import HeadLinear
from vitrail.parts.positions import RelativePositionBias

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
BF16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "re-attention": ("deepvit_patch16_224_re_attn_16b", {"depth": 2, "num_heads": 6}),
    "talking heads": ("cait_s24_224", {"depth": 2, "num_heads": 3}),
}


def a_model(name: str) -> Any:
    """Make a model whose batch norms and layers over heads are no identities."""
    torch.manual_seed(0)
    variant, changes = MODELS[name]
    model = vitrail.create_model(variant, dim=48, patch_size=8, num_classes=5, **changes).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            nn.init.normal_(module.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
        if isinstance(module, HeadLinear):
            nn.init.normal_(module.bias, std=0.1)
    return model


def twin(qkv: Tensor, heads: int, before: HeadLayer | None, after: HeadLayer | None) -> Tensor:
    """Return the same from loops over images, heads and queries, in fp64."""
    q, k, v = qkv.double().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    y = torch.zeros_like(q)

    def mixed(layer: HeadLayer | None, scores: Tensor, g: int) -> Tensor:
        if layer is None:
            return scores[g]
        return sum(layer.weight[g, h].double() * scores[h] for h in range(heads)) + layer.bias[g].double()

    for b in range(len(q)):
        for i in range(q.shape[2]):
            scores = torch.stack([k[b, h] @ q[b, h, i] for h in range(heads)])
            probs = torch.stack([mixed(before, scores, g).softmax(0) for g in range(heads)])
            for g in range(heads):
                y[b, g, i] = mixed(after, probs, g) @ v[b, g]
    return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize(("tokens", "heads", "width"), [(1, 1, 8), (7, 3, 16), (16, 4, 8), (33, 6, 40), (50, 5, 64)])
def test_the_kernel_equals_its_twin(tokens: int, heads: int, width: int, dtype: torch.dtype) -> None:
    qkv = torch.randn(3, tokens, 3 * heads * width)
    qkv[..., : heads * width] *= width**-0.5
    layers = [HeadLayer(torch.randn(heads, heads) / heads**0.5, torch.randn(heads)) for _ in range(2)]
    for before in (None, layers[0]):
        for after in (None, layers[1]):
            got, want = mixed_attention(qkv.to(dtype), heads, before, after), twin(qkv.to(dtype), heads, before, after)
            assert got.dtype == dtype and relative(got, want) < (1e-5 if dtype == torch.float32 else 1e-2)


def test_large_scores_do_not_overflow() -> None:
    qkv = torch.randn(1, 20, 3 * 16)
    qkv[..., :16] *= 1e4
    assert relative(mixed_attention(qkv, 2, None, None), twin(qkv, 2, None, None)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(8, 8), (40, 56)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    model, images = a_model(name), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    assert sum(isinstance(part, FusedHeadMixing) for part in fast.modules()) == 2


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
@pytest.mark.parametrize("name", MODELS)
def test_bf16_is_near_fp32(name: str) -> None:
    model, images = a_model(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert (
            relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 5e-2
        )  # CaiT's class blocks are PyTorch's


def test_threads_and_batches_do_not_change_the_output() -> None:
    qkv, layer = torch.randn(9, 30, 3 * 32), HeadLayer(torch.randn(4, 4), torch.randn(4))
    whole = mixed_attention(qkv, 4, layer, layer)
    assert torch.equal(torch.cat([mixed_attention(one, 4, layer, layer) for one in qkv.split(1)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(mixed_attention(qkv, 4, layer, layer), whole)
    finally:
        torch.set_num_threads(threads)


CHANGES: dict[str, tuple[str, nn.Module, str]] = {
    "another layer": ("attend.after", nn.Softmax(1), "its layer over heads is Softmax"),
    "another norm": ("attend.after.1", nn.InstanceNorm2d(6), "its layer over heads is Sequential"),
    "no statistics": ("attend.after.1", nn.BatchNorm2d(6, track_running_stats=False), "no running statistics"),
    "positions": ("position", RelativePositionBias(6, (8, 8)), "HeadMixingAttend, with RelativePositionBias"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_parts_are_reported_and_run(change: str) -> None:
    model, images = a_model("re-attention"), torch.randn(2, 3, 64, 64)
    place, part, reason = CHANGES[change]
    model.set_submodule(f"backbone.stages.0.blocks.0.token_mixer.{place}", part.eval())
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert [reason in text for text in fast.unconverted] == [True], fast.unconverted
    assert sum(isinstance(part, UnfusedBranch) for part in fast.modules()) == 1
    if change != "positions":
        with torch.inference_mode():
            assert relative(fast(images), model(images)) < 1e-5
