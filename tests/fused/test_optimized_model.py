"""Optimized models: precision, autocast, copies, compilers and tracing."""

import copy
import pickle
from typing import Any

import pytest
import torch
from small_models import small
from torch import Tensor

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.optimized_model import NativeClassifier, OptimizedClassifier
from vitrail.native.build import refusal
from vitrail.parts.backbone import Classifier

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ONE_OF_EACH = ["vit", "swin official", "nat", "poolformer", "mixer", "bit", "hybrid"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_autocast_does_not_change_the_output(name: str, precision: Any) -> None:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    fast = vitrail.optimize(model, precision)
    with torch.inference_mode():
        want, features = fast(images), fast.features(images)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                assert torch.equal(fast(images), want)
                assert torch.equal(fast.features(images).tokens, features.tokens)
                made_here = vitrail.optimize(model, precision)  # weights are folded in fp32
            assert torch.equal(made_here(images), want)


def test_an_unconverted_model_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.fused.cpu.refusal", lambda dtype: "broken")
    fast, images = vitrail.optimize(small("swin official"), "fp32"), torch.randn(2, 3, 64, 64)
    assert fast.unconverted == {"everything: broken": 1}
    want = fast(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(images), want)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_is_optimized_once(precision: Any) -> None:
    fast = vitrail.optimize(small("vit"), precision)
    assert fast.precision == precision
    assert vitrail.optimize(fast, precision) is fast and vitrail.optimize(fast) is fast
    with pytest.raises(
        VitrailError, match=f"in {precision} already.*cannot be converted to bf16.*\n.*the model that it was made"
    ):
        vitrail.optimize(fast, "bf16")
    with pytest.raises(VitrailError, match="Unknown precision"):
        vitrail.optimize(fast, "bf61")  # pyright: ignore[reportArgumentType]


def test_auto_reports_its_precision() -> None:
    assert vitrail.optimize(small("vit")).precision in ("fp32", "bf16")


def test_an_optimized_model_refuses_other_weights() -> None:
    """The state dict of a form holds few of its weights, so that of another one would fit and change nearly nothing."""
    fast, other = (vitrail.optimize(small("vit"), "fp32") for _ in range(2))
    for state in (fast.state_dict(), other.state_dict(), small("vit").state_dict()):
        with pytest.raises(VitrailError, match="cannot be replaced"):
            fast.load_state_dict(state)


class Halved(Classifier):
    """Classifier with its own forward, which calls that of its parent."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 2

    def best(self, images: Tensor) -> Tensor:
        return self(images).argmax(1)


def plus_one(module: Any, given: Any, answer: Tensor) -> Tensor:
    return answer + 1


def test_custom_forward_and_hooks_are_kept() -> None:
    whole, images = small("vit"), torch.randn(2, 3, 64, 64)
    model = Halved(whole.backbone, whole.head)
    model.register_forward_hook(plus_one)
    fast: Any = vitrail.optimize(model, "fp32")
    assert isinstance(fast, Halved) and isinstance(fast, OptimizedClassifier) and type(model) is Halved
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), model(images))
        assert torch.equal(fast.best(images), model.best(images))
        for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), pickle.loads(pickle.dumps(fast, 0))):
            assert type(copied) is type(fast) is type(vitrail.optimize(model, "fp32"))
            assert torch.equal(copied(images), fast(images))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch would rather have models exported than traced
@pytest.mark.parametrize("name", ["vit", "swin official", "bit"])
def test_tracing_an_optimized_model_is_refused(name: str) -> None:
    fast, images = vitrail.optimize(small(name), "fp32"), torch.randn(2, 3, 64, 64)
    for trace in (
        lambda: torch.export.export(fast, (images,)),
        lambda: torch.jit.trace(fast, images, check_trace=False),
        lambda: torch.func.vmap(fast)(images[:, None]),
    ):
        with pytest.raises(VitrailError, match="the model that it was made from"):
            trace()


def test_torch_compile_runs_an_optimized_model() -> None:
    torch.compiler.reset()
    fast, images = vitrail.optimize(small("swin official"), "fp32"), torch.randn(2, 3, 64, 64)
    seen = []

    def backend(module: Any, example: Any) -> Any:
        seen.append(module)
        return module.forward

    with torch.inference_mode():
        want, features = fast(images), fast.features(images)
        assert torch.equal(torch.compile(fast, backend=backend)(images), want)
        assert seen == []
        around = torch.compile(lambda x: fast(x * 0.5 + x * 0.5) * 2, backend=backend)
        assert torch.equal(around(images), want * 2) and seen
        tokens = torch.compile(lambda x: fast.features(x).tokens, backend=backend)(images)
        assert torch.equal(tokens, features.tokens)
        torch.compiler.reset()  # else it knows that it skips this one
        with pytest.raises(torch._dynamo.exc.Unsupported, match="compiled for this machine already"):
            torch.compile(fast, backend=backend, fullgraph=True)(images)
    torch.compiler.reset()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["vit", "swin official", "nat", "mixer", "bit"])
def test_copies_read_their_own_weights(name: str, precision: Any) -> None:
    """Native code caches data pointers: a copy must not use the pointers of its original."""
    fast, images = vitrail.optimize(small(name), precision), torch.randn(1, 3, 64, 64)
    assert type(fast) is NativeClassifier
    with torch.inference_mode():
        want = fast(images)
        copies = copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))
        for tensor in laid_out(fast):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 99)
        assert not torch.equal(fast(images), want)
        assert all(torch.equal(copied(images), want) for copied in copies)


def laid_out(fast: OptimizedClassifier) -> list[Tensor]:
    """Return the tensors of packed weights."""
    held = [value for module in fast.modules() for value in vars(module).values()]
    held = [part for value in held for part in (value if isinstance(value, list) else [value])]
    return [
        tensor
        for value in held
        for packed in (value, getattr(value, "product", None))
        for name in ("panels", "weight")
        if isinstance(tensor := getattr(packed, name, None), Tensor)
    ]
