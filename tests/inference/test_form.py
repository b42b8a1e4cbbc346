"""Selection of the optimized model: only if it pays off, is faster and agrees; the choice is reported."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shades import Brightness
from torch import Tensor, nn

import vitrail
from vitrail.cli import main
from vitrail.data.dataset import ImageSet
from vitrail.errors import VitrailError
from vitrail.fused import auto_optimize as form_module
from vitrail.fused.auto_optimize import FEW, InferenceRunner, SelectedModel
from vitrail.inference.evaluate import evaluate
from vitrail.inference.predict import predict
from vitrail.native.build import Unavailable, refusal
from vitrail.tasks import find_options
from vitrail.tasks.classify.evaluation import ClassificationEvaluation
from vitrail.tasks.inference import inference_mode_for

COMPILED = refusal(torch.float32)


def taking(*seconds: float) -> Callable[[], float]:
    """Return a clock by which the first thing that is timed takes the first of these, and so on."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for each in seconds:
            yield now
            now += each
            yield now

    return ticks().__next__


FASTER = (8.0, 2.0)  # the plain model, the fast form
SLOWER = (8.0, 8.0) * 4
ONCE = " on the first image"


class Fast(nn.Module):
    """An optimized model with a small error."""

    def __init__(self, model: nn.Module, off: float = 0.0):
        super().__init__()
        self.model, self.off, self.asked = model, off, 0
        self.unconverted: dict[str, int] = {}

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return self.model(images) + self.off


@pytest.fixture
def fast(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Fast:
    made = Fast(tiny, off=1e-6)
    monkeypatch.setattr(form_module, "optimize", lambda model, precision: made)
    return made


def ask(model: nn.Module, images: Tensor, clock: Callable[[], float], **wishes: Any) -> tuple[SelectedModel, Tensor]:
    wishes = {"count": None, "precision": "fp32", **wishes}
    answerer = InferenceRunner(model, clock=clock, **wishes)
    with inference_mode_for(model):
        logits = answerer(images)
        assert torch.equal(answerer(images), answerer(images))
    assert answerer.form is not None
    return answerer.form, logits


IMAGES = torch.linspace(-1, 1, 6 * 16 * 16).reshape(6, 1, 16, 16).sin()


def test_the_faster_model_runs_all_images(tiny: nn.Module, fast: Fast) -> None:
    form, logits = ask(tiny, IMAGES, taking(*FASTER))
    assert str(form) == "optimized model: 4.0x in fp32 on the first image" and form.answer is fast
    assert fast.asked == 1 + 3 * len(IMAGES)  # one for the trial, and the batch as a whole: no answer is put together
    with inference_mode_for(tiny):
        expected = fast(IMAGES)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-7)  # the images of the check too


@pytest.mark.parametrize(
    ("seconds", "off", "reason", "asked"),
    [
        (SLOWER, 1e-6, "the fast one in fp32 is no faster here (1.00x)", 4),
        (FASTER * 4, 0.3, "the answers of the fast one in fp32 are ", 4),
        (FASTER, float("nan"), "the answers of the fast one in fp32 are not numbers", 1),
    ],
)
def test_the_plain_model_is_kept_with_a_reason(
    tiny: nn.Module, fast: Fast, seconds: tuple[float, ...], off: float, reason: str, asked: int
) -> None:
    fast.off = off
    form, logits = ask(tiny, IMAGES, taking(*seconds))
    assert (form.name, form.precision, form.speedup) == ("plain", "fp32", None)
    assert str(form).startswith(f"plain model in fp32: {reason}")
    assert fast.asked == asked
    with inference_mode_for(tiny):
        torch.testing.assert_close(logits, tiny(IMAGES), rtol=0, atol=1e-6)


def test_unconverted_parts_explain_a_missing_speedup(tiny: nn.Module, fast: Fast) -> None:
    fast.unconverted = {"token mixer: Pooling has no compiled form": 3}
    form, _ = ask(tiny, IMAGES, taking(*SLOWER))
    assert str(form).endswith("is no faster here (1.00x); it keeps token mixer: Pooling has no compiled form")
    fast.unconverted = {"everything: no C++ compiler": 1}
    assert str(ask(tiny, IMAGES, taking(*FASTER))[0]) == "plain model in fp32: no C++ compiler"


def test_missing_native_code_is_not_an_error(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: nn.Module, precision: str) -> nn.Module:
        raise Unavailable("no C++ compiler here")

    monkeypatch.setattr(form_module, "optimize", fail)
    assert str(ask(tiny, IMAGES, taking(*FASTER))[0]) == "plain model in fp32: no C++ compiler here"


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"fast": False}, "as asked"),
        ({"count": FEW}, "an optimized model does not pay off for so few images"),
        ({"count": 6}, "an optimized model does not pay off for so few images"),
    ],
)
def test_small_jobs_build_nothing(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(form_module, "optimize", lambda *_, **__: pytest.fail("built"))
    # Six images at a hundredth of a second: building saves less than anybody notices.
    form, _ = ask(tiny, IMAGES, taking(0.01), **wishes)
    assert form.name == "plain" and form.reason == reason


def test_build_time_is_part_of_the_decision(tiny: nn.Module, fast: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    # 98 images of 2 s: half of that less the one that the plain model runs anyway, and a margin.
    # Packing the largest weight takes as long as the clock is set.
    largest = max(value.numel() for value in tiny.parameters() if value.ndim > 1)
    share = largest / sum(value.numel() for value in tiny.parameters())
    for seconds, name in ((0.9 * 96 / 15 * share, "fast"), (1.1 * 96 / 15 * share, "plain")):
        monkeypatch.setattr(form_module, "unbuilt", lambda model, precision: 0)
        assert ask(tiny, IMAGES, taking(2.0, seconds, 0.5), count=98)[0].name == name
    monkeypatch.setattr(form_module, "unbuilt", lambda model, precision: 3)  # compiling comes on top, two at a time
    monkeypatch.setattr(form_module.os, "cpu_count", lambda: 2)
    assert ask(tiny, IMAGES, taking(2.0, 0.0), count=16)[0].name == "plain"
    assert ask(tiny, IMAGES, taking(2.0, 0.0, 0.5), count=17)[0].name == "fast"


def test_models_without_an_optimized_version(tiny: nn.Module, brightness: Brightness, fast: Fast) -> None:
    assert "Brightness has no other" in str(ask(brightness, IMAGES, taking())[0])
    assert "was given as it is" in str(ask(fast, IMAGES, taking())[0])
    seen: list[Any] = []
    handle = tiny.get_submodule("head").register_forward_hook(lambda *event: seen.append(event))
    try:
        assert "forward hooks" in str(ask(tiny, IMAGES, taking())[0]) and seen
    finally:
        handle.remove()


def test_bf16_is_honoured_by_every_version(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    with inference_mode_for(tiny):
        expected = copy.deepcopy(tiny).bfloat16()(IMAGES.bfloat16()).float()
    form, logits = ask(tiny, IMAGES, taking(), precision="bf16", fast=False)
    assert (form.name, form.precision, logits.dtype) == ("plain", "bf16", torch.float32)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-2)
    assert not torch.equal(logits, ask(tiny, IMAGES, taking(), fast=False)[1])
    assert all(value.dtype == torch.float32 for value in tiny.parameters())


@pytest.mark.parametrize(("computes", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_auto_follows_the_hardware(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch, computes: bool, wanted: str
) -> None:
    asked: list[str] = []

    def optimize(model: nn.Module, precision: str) -> Fast:
        asked.append(precision)
        return Fast(model)

    monkeypatch.setattr(form_module, "usual_precision", lambda device: "bf16" if computes else "fp32")
    monkeypatch.setattr(form_module, "optimize", optimize)
    form, _ = ask(tiny, IMAGES, taking(*FASTER), precision="auto")
    assert asked == [wanted] and str(form) == f"optimized model: 4.0x in {wanted}{ONCE}"
    # The plain form of `auto` is the model as it is, whatever the hardware.
    assert ask(tiny, IMAGES, taking(), precision="auto", fast=False)[0].precision == "fp32"


class Int8:
    """Replaces `optimize`: models of a given error, by precision; records the requests."""

    def __init__(self, off: dict[str, float], kept: dict[str, int] | None = None):
        self.off, self.unconverted, self.asked = off, kept or {}, []

    def __call__(self, model: nn.Module, precision: str) -> Fast:
        self.asked.append(precision)
        made = Fast(model, self.off[precision])
        made.unconverted = self.unconverted if precision == "int8" else {}
        return made


@pytest.fixture
def in_int8(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Int8]:
    monkeypatch.setattr(form_module, "usual_precision", lambda device: "bf16")

    def make(**wishes: Any) -> Int8:
        made = Int8(**wishes)
        monkeypatch.setattr(form_module, "optimize", made)
        return made

    return make


def test_int8_is_taken_where_it_is_faster_and_agrees_by_its_own_bar(
    tiny: nn.Module, in_int8: Callable[..., Int8]
) -> None:
    with inference_mode_for(tiny):
        logits = tiny(IMAGES[:4])
    span = (logits.max() - logits.min()).item()
    made = in_int8(off={"int8": 0.05 * span, "bf16": 0.05 * span})
    # int8 on request does not depend on the number of images; nor does a resumed job.
    for images, count in ((IMAGES, None), (IMAGES, 6), (IMAGES[:1], 1)):
        form, _ = ask(tiny, images, taking(*FASTER * 4), precision="int8", count=count)
        assert str(form).startswith("optimized model: 4.0x in int8 on the first ")
    assert made.asked == ["int8"] * 3
    form, _ = ask(tiny, IMAGES, taking(*(8.0, 0.0, 2.0) * 4), precision="bf16")  # and fp32, for the truth
    assert str(form) == "plain model in bf16: the answers of the fast one in bf16 are 5.0% off"


@pytest.mark.parametrize(
    ("off", "kept", "seconds", "reason"),
    [
        (9.0, {}, FASTER * 4, "the answers of the fast one in int8 are "),
        (0.0, {}, SLOWER, "the fast one in int8 is no faster here (1.00x)"),
        (0.0, {"everything in int8: this processor is too old": 1}, (8.0,), "in int8: this processor is too old"),
    ],
)
def test_a_rejected_int8_falls_back_and_is_reported(
    tiny: nn.Module,
    in_int8: Callable[..., Int8],
    off: float,
    kept: dict[str, int],
    seconds: tuple[float, ...],
    reason: str,
) -> None:
    made = in_int8(off={"int8": off, "bf16": 0.0}, kept=kept)
    form, _ = ask(tiny, IMAGES, taking(*seconds, 2.0), precision="int8")
    assert made.asked == ["int8", "bf16"]
    assert str(form).startswith(f"optimized model: 4.0x in bf16 on the first image ({reason}")
    again = SLOWER[1:] if len(seconds) == 1 else (8.0,) * 4  # the plain model's time while int8 is timed
    plain, _ = ask(tiny, IMAGES, taking(*seconds, *again), precision="int8")
    assert (plain.name, plain.precision) == ("plain", "fp32")
    assert plain.reason.startswith(reason) and plain.reason.endswith("in bf16 is no faster here (1.00x)")


def test_changed_predictions_in_int8_are_counted(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar as wide as a tenth of the range lets classes swap, but not those that lead by more than its half."""
    logits = torch.tensor([[1.0, 0.93, 0.0]]).repeat(4, 1)
    swapped = logits + torch.tensor([[-0.04, 0.04, 0.0]])

    class Swapped(Fast):
        def forward(self, images: Tensor) -> Tensor:
            return swapped[: len(images)]

    monkeypatch.setattr(form_module, "optimize", lambda model, precision: Swapped(model))
    monkeypatch.setattr(type(tiny), "forward", lambda self, images: logits[: len(images)])
    form, _ = ask(tiny, IMAGES[:4], taking(*FASTER * 4, *(2.0,) * 4), precision="int8")
    assert form.reason.startswith("the answers of the fast one in int8 name another class for 100% of the images")


def test_gpu_models_are_selected_in_the_same_way(tiny: nn.Module, fast: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a GPU: the whole batch is asked, once before time is taken, and is waited for."""
    cuda, waited = torch.device("cuda"), []
    monkeypatch.setattr(InferenceRunner, "_device", lambda self: cuda)
    monkeypatch.setattr(form_module, "finished", waited.append)
    monkeypatch.setattr(form_module, "usual_precision", lambda device: "bf16")
    monkeypatch.setattr(form_module, "unbuilt", lambda model, precision: 0)
    form, _ = ask(tiny, IMAGES, taking(*FASTER))
    assert str(form) == "optimized model: 4.0x in fp32 on the first 6 images" and form.answer is fast
    assert waited == [cuda] * 2  # the plain form, the fast form
    assert fast.asked == (1 + 1 + 1 + 1) * len(IMAGES)  # before time is taken, then, and twice by `ask`


def test_prefetching_pauses_during_timing(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding the next images takes the cores that the plain form, which comes first, is timed on."""
    shut: list[bool] = []

    class Watching(Fast):
        def forward(self, images: Tensor) -> Tensor:
            shut.append(not answerer.gate.is_set())
            if len(shut) == 4:
                raise MemoryError
            return super().forward(images)

    monkeypatch.setattr(form_module, "optimize", lambda model, precision: Watching(model))
    answerer = InferenceRunner(tiny, None, precision="fp32", clock=taking(*FASTER))
    with inference_mode_for(tiny):
        answerer(IMAGES)
        answerer(IMAGES)
        assert shut == [True, False, False] and answerer.gate.is_set()  # the trial, the batch, the next one
        answerer = InferenceRunner(tiny, None, precision="fp32", clock=taking(*FASTER))
        with pytest.raises(MemoryError):
            answerer(IMAGES)
    assert shut[3] and answerer.gate.is_set()


def test_every_result_records_its_version(tiny: nn.Module, fast: Fast, folder: Path) -> None:
    told: list[SelectedModel] = []
    answers = predict(tiny, folder, notify=told.append)
    assert [each.form for each in answers] == ["" if each.error else str(told[0]) for each in answers]


def test_an_unknown_precision_is_named(tiny: nn.Module) -> None:
    with pytest.raises(VitrailError, match="Did you mean: fp32"):
        InferenceRunner(tiny, 1, precision="fp23")  # type: ignore[arg-type]


@pytest.mark.skipif(COMPILED is not None, reason=str(COMPILED))
def test_the_real_fast_form_passes_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vitrail.create_model("swin_tiny_patch4_window7_224", num_classes=5, dim=32, depths=(1, 1), num_heads=(1, 2))
    images = torch.randn(6, 3, 56, 56)
    form, logits = ask(model.eval(), images, taking(*FASTER))
    assert form.name == "fast"
    with inference_mode_for(model):
        torch.testing.assert_close(logits, model(images), rtol=0, atol=1e-4)


def test_an_evaluation_reports_the_version_that_ran(greys: ImageSet, tiny: nn.Module, tmp_path: Path) -> None:
    told: list[SelectedModel] = []
    result = evaluate(tiny, "digits", notify=told.append, optimize=False)
    assert (result.form, result.precision, result.speedup) == ("plain", "fp32", None)
    assert [each.name for each in told] == ["plain"]
    half = evaluate(tiny, "digits", precision="bf16", optimize=False)
    assert half.precision == "bf16" and half.calibration.nll != result.calibration.nll
    assert ClassificationEvaluation.from_dict(half.to_dict()) == half
    older = {key: value for key, value in result.to_dict().items() if key not in ("form", "speedup")}
    assert ClassificationEvaluation.from_dict(older) == result


def test_evaluation_is_fp32_by_default(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch, greys: ImageSet) -> None:
    """Nobody's top-1 changes because a machine has arithmetic for bf16."""
    asked: list[str] = []

    def optimize(model: nn.Module, precision: str) -> Fast:
        asked.append(precision)
        return Fast(model)

    monkeypatch.setattr(form_module, "usual_precision", lambda device: "bf16")
    monkeypatch.setattr(form_module, "optimize", optimize)
    monkeypatch.setattr(form_module.InferenceRunner, "_weigh", lambda self, job, precision: None)
    fast, plain = evaluate(tiny, "digits"), evaluate(tiny, "digits", optimize=False)
    assert asked == ["fp32"] and fast.precision == plain.precision == "fp32"
    assert fast.confusion == plain.confusion


def test_attention_maps_are_the_plain_models(tiny: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_module, "optimize", lambda *_, **__: pytest.fail("maps need the plain model"))
    vitrail.save_model(tiny, folder.parent / "tiny")  # type: ignore[arg-type]
    words = [str(folder.parent / "tiny"), str(folder / "a" / "0.png"), "--out", str(folder.parent / "maps")]
    assert main(["explain", *words]) == 0 and list((folder.parent / "maps").iterdir())


@pytest.mark.parametrize(
    ("attributes", "words"), [({"runtime": "onnx"}, "program of onnx"), ({"precision": "fp32"}, "")]
)
def test_a_precision_that_is_not_computed_is_refused(tiny: nn.Module, attributes: dict[str, str], words: str) -> None:
    """An exported program and an optimized model have a precision of their own; bf16 would be a false label."""
    for name, value in attributes.items():
        setattr(tiny, name, value)
    with pytest.raises(VitrailError, match=f"{words}.* computes in fp32, got --precision bf16"):
        InferenceRunner(tiny, None, precision="bf16")
    assert InferenceRunner(tiny, None, precision="auto")._plain().precision == "fp32"


@pytest.mark.parametrize("task", ["pretrain", "translate", "language", "complete", "points", "parts"])
@pytest.mark.parametrize("kind", ["PredictOptions", "EvaluateOptions"])
def test_tasks_in_fp32_alone_refuse_other_precisions(task: str, kind: str) -> None:
    options = getattr(find_options(task), kind)
    assert options(precision="auto").precision == "auto"
    with pytest.raises(VitrailError, match="compute in fp32"):
        options(precision="bf16")
