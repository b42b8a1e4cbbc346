"""Optimized models compute the same function: adapters, hooks, NaN, torch's defaults, no images."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_models import SMALL, relative, small
from torch import Tensor, nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.native.build import refusal
from vitrail.parts.positions import NoPosition

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ONE_OF_EACH = ["vit", "swin official", "nat", "poolformer", "mixer", "bit", "hybrid"]


class Adapter(nn.Linear):
    """A linear layer with something added, as fine-tuning libraries make them."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.more = nn.Parameter(torch.randn(layer.out_features))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.more


def adapted(name: str) -> Any:
    model: Any = small(name)
    for path, module in [*model.backbone.named_modules()]:
        if type(module) is nn.Linear and path.rpartition(".")[2] in ("qkv", "fc1"):
            model.backbone.set_submodule(path, Adapter(module))
    return model


@pytest.mark.parametrize("name", ["vit", "swin official", "nat", "mixer", "poolformer"])
def test_adapters_are_computed(name: str) -> None:
    model, images = adapted(name), torch.randn(2, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    assert any("Adapter" in reason for reason in fast.unconverted)


@pytest.mark.parametrize("name", ["vit", "swin official", "nat"])
def test_adapters_learn(name: str) -> None:
    model, images = adapted(name), torch.randn(2, 3, 64, 64)
    quick = fuse_for_training(copy.deepcopy(model))
    quick(images).square().sum().backward()
    model(images).square().sum().backward()
    gradients = {path: weight.grad for path, weight in quick.named_parameters() if path.endswith(".more")}
    assert gradients
    for path, weight in model.named_parameters():
        if path in gradients:
            assert gradients[path] is not None and relative(gradients[path], weight.grad) < 1e-3, path


def test_query_dependent_positions_are_not_converted() -> None:
    class Looking(NoPosition):
        def bias(self, q: Tensor, grid: vitrail.Grid) -> Tensor:
            return q.mean(-1, keepdim=True)[:1, :, :, :].transpose(-1, -2)[0].expand(-1, grid.tokens, -1)

    model: Any = small("vit")
    for block in model.backbone.stages[0].blocks:
        block.token_mixer.position = Looking()
    fast: Any = vitrail.optimize(model, precision="fp32")
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    assert fast.unconverted == {"token mixer: its position is Looking": 2}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_hooks_are_called(name: str) -> None:
    model: Any = small(name)
    images = torch.randn(1, 3, 64, 64)
    block = next(block for block in model.backbone.stages[-1].blocks)
    inner = getattr(block, "token_mixer", None) or block.conv1
    for part in (block, inner, model.backbone.stages[-1]):
        part.register_forward_hook(lambda module, given, y: (y[0] * 0.5, *y[1:]) if isinstance(y, tuple) else y * 0.5)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    assert any("hooks" in reason for reason in fast.unconverted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_nan_propagates(name: str, precision: Any) -> None:
    fast, images = vitrail.optimize(small(name), precision=precision), torch.randn(2, 3, 64, 64)
    images[1, 0, 20, 20] = float("nan")
    with torch.inference_mode():
        spoilt, whole = fast(images)[1], fast(images)[0]
    assert spoilt.isnan().any() and whole.isfinite().all()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_huge_inputs_are_finite_and_inf_stays_in_its_image(name: str, precision: Any) -> None:
    """Values above the fp16 range saturate; the norm after them hides most of the difference."""
    model, images = small(name), torch.randn(2, 3, 64, 64)
    fast = vitrail.optimize(model, precision)
    with torch.inference_mode():
        alone = fast(images)[0]
        for huge in (7e4, -1e6):
            images[1, 0, 20, 20] = huge
            got, want = fast(images), model(images)
            assert relative(got[1], want[1]) < 0.05 and torch.equal(got[0], alone)
        images[1, 0, 20, 20] = float("inf")
        assert torch.equal(fast(images)[0], alone)


@pytest.mark.parametrize("name", ["vit", "swin official"])
def test_nan_weights_propagate(name: str) -> None:
    model: Any = small(name)
    with torch.no_grad():
        model.backbone.stages[0].blocks[0].token_mixer.qkv.weight[0, 0] = float("nan")
    with torch.inference_mode():
        assert vitrail.optimize(model, precision="fp32")(torch.randn(1, 3, 64, 64)).isnan().any()


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Give torch another default precision."""
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_default_dtype_does_not_change_the_output(name: str, default: torch.dtype) -> None:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want = vitrail.optimize(model, precision="fp32")(images)
        torch.set_default_dtype(default)
        assert torch.equal(vitrail.optimize(model, precision="fp32")(images), want)


@pytest.mark.parametrize("name", ["vit", "swin official", "nat"])
def test_default_dtype_does_not_change_gradients(name: str, default: torch.dtype) -> None:
    model, images = fuse_for_training(small(name)), torch.randn(2, 3, 64, 64)
    model(images).square().sum().backward()
    want = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    torch.set_default_dtype(default)
    model(images).square().sum().backward()
    assert all(torch.equal(weight.grad, grad) for weight, grad in zip(model.parameters(), want, strict=True))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_empty_images_are_refused(name: str) -> None:
    fast = vitrail.optimize(small(name), precision="fp32")
    with pytest.raises(VitrailError, match="numbers in memory"):
        fast(torch.empty(1, 3, 64, 64, device="meta"))


@pytest.mark.parametrize("name", SMALL)
def test_an_empty_batch_gives_an_empty_output(name: str) -> None:
    model, none = small(name), torch.zeros(0, 3, 64, 64)
    with torch.inference_mode():
        assert vitrail.optimize(model, precision="fp32")(none).shape == model(none).shape == (0, 10)


@pytest.mark.parametrize("name", ["vit", "swin official", "nat", "bit"])
def test_an_optimized_model_run_with_gradients_can_be_copied(name: str) -> None:
    fast, images = vitrail.optimize(small(name), precision="fp32"), torch.randn(1, 3, 64, 64)
    answer = fast(images)
    assert torch.equal(copy.deepcopy(fast)(images), answer)
