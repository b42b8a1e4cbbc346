"""Candidates of a benchmark: missing packages, failing variants, and the choice of the fastest variant."""

import sys

import pytest
import torch
from torch import nn

import vitrail
from vitrail.bench.candidate import Candidate, CandidateUnavailable, Variant, foreign
from vitrail.bench.libraries import PEERS
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.prepare import prepare_candidate
from vitrail.bench.registry import CANDIDATES, find_candidates
from vitrail.errors import VitrailError
from vitrail.models import create_model

MODEL, EXAMPLE = nn.Flatten(), torch.zeros(2, 3, 4, 4)


def as_it_is(model, example):
    """Build nothing."""
    return model


class FakeClock:
    """A clock that candidates move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def way(self, name: str, seconds: float) -> Variant:
        """Return a way that takes so long for each batch."""

        def answer(images):
            self.now += seconds
            return images.flatten(1)

        return Variant(name, as_it_is, lambda module, example: answer)


def candidate(*ways: Variant, **facts) -> Candidate:
    """Return a candidate with these ways."""
    return Candidate("they", lambda model, example, precision: list(ways), **facts)


def failing(error: Exception) -> Variant:
    """Return a way that raises."""

    def start(module, example):
        raise error

    return Variant("broken", as_it_is, start)


def test_missing_packages_are_named_with_the_install_command():
    one = candidate(needs=("torch", "no_such_engine"))
    with pytest.raises(CandidateUnavailable) as told:
        one.open(MODEL, EXAMPLE, "fp32")
    assert str(told.value) == "no_such_engine is not installed: pip install no_such_engine"


def test_slower_variants_are_dropped_and_reported():
    clock = FakeClock()
    ways = [
        clock.way(name, seconds) for name, seconds in {"slow": 0.5, "near": 0.28, "fast": 0.25, "slower": 1}.items()
    ]
    ready = prepare_candidate(candidate(*ways), MODEL, EXAMPLE, "fp32", clock=clock)
    assert ready.way == "fast" and list(ready.ways) == ["fast", "near"]
    assert ready.others == {"slow": "2.00 times its time in a trial", "slower": "4.00 times its time in a trial"}


def test_a_failing_variant_does_not_drop_the_others():
    ready = prepare_candidate(
        candidate(failing(RuntimeError("no\nkernel")), FakeClock().way("good", 1.0)), MODEL, EXAMPLE, ""
    )
    assert ready.way == "good" and ready.others == {"broken": "they failed: RuntimeError: no"}


def test_variants_of_a_fragile_candidate_are_probed_first():
    asked = []

    def probe(way):
        asked.append(way.name)
        if way.name == "deadly":
            raise CandidateUnavailable("its process died")

    ways = Variant("deadly", as_it_is, lambda module, example: pytest.fail("taken")), FakeClock().way("good", 1.0)
    ready = prepare_candidate(candidate(*ways, fragile=True), MODEL, EXAMPLE, "fp32", probe)
    assert asked == ["deadly", "good"] and ready.way == "good" and ready.others == {"deadly": "its process died"}
    prepare_candidate(candidate(*ways[1:]), MODEL, EXAMPLE, "fp32", probe)
    assert asked == ["deadly", "good"]  # the others run in this process at once


def test_a_candidate_without_a_working_variant_reports_the_reason():
    with pytest.raises(CandidateUnavailable, match="they failed: OSError: gone"):
        prepare_candidate(candidate(failing(OSError("gone"))), MODEL, EXAMPLE, "fp32")


def test_a_failure_in_the_first_call_counts():
    def answer(images):
        raise RuntimeError("only now")

    with pytest.raises(CandidateUnavailable, match="only now"):
        prepare_candidate(candidate(Variant("late", as_it_is, lambda module, example: answer)), MODEL, EXAMPLE, "fp32")


def test_own_exceptions_propagate():
    with pytest.raises(ZeroDivisionError):
        prepare_candidate(candidate(failing(ZeroDivisionError()), ours=True), MODEL, EXAMPLE, "fp32")


def test_own_unsupported_reason_is_reported():
    with pytest.raises(CandidateUnavailable, match="not this machine"):
        prepare_candidate(candidate(failing(VitrailError("not this machine")), ours=True), MODEL, EXAMPLE, "fp32")


def test_peer_failures_are_reported_in_one_line():
    with pytest.raises(CandidateUnavailable) as told, foreign("converting"):
        raise KeyError("first\nsecond " + 300 * "x")
    assert "\n" not in str(told.value) and len(str(told.value)) < 260


def test_an_unknown_peer_gets_the_nearest():
    with pytest.raises(VitrailError, match="Did you mean: timm-eager"):
        find_candidates(("tim-eager",))


def test_own_candidates_are_always_included_and_not_peers():
    assert {one.name for one in find_candidates(())} == {one.name for one in CANDIDATES if one.ours}
    with pytest.raises(VitrailError, match="Unknown peer 'vitrail'"):
        find_candidates(("vitrail",))


OPTIMIZED = next(one for one in CANDIDATES if one.name == "vitrail-optimized")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_optimized_model_is_a_candidate(monkeypatch, precision):
    model = create_model("vit_tiny_patch16_224", num_classes=5, dim=32, num_heads=2, depth=1, image_size=32).eval()
    asked = []

    def optimize(model, precision):
        asked.append((model, precision))
        model.unconverted = {}
        return model

    monkeypatch.setattr(vitrail, "optimize", optimize)
    images = torch.randn(2, 3, 32, 32)
    ready = prepare_candidate(OPTIMIZED, model, images, precision)
    assert asked[0][1] == precision and asked[0][0] is not model  # a copy: the reference stays as it is
    assert ready.way == ("optimized in int8" if precision == "int8" else "optimized")
    assert torch.equal(ready.answer(images), model(images))


def test_an_optimized_model_without_native_parts_is_excluded():
    model = create_model("poolformer_s12", num_classes=5, dims=(8, 16), depths=(1, 1)).eval()
    with pytest.raises(CandidateUnavailable, match="It keeps everything in int8: "):
        prepare_candidate(OPTIMIZED, model, torch.randn(2, 3, 64, 64), "int8")


def test_peers_run_in_bf16_if_the_model_is_int8():
    asked = {}

    def ways(model, example, precision):
        asked["they"] = precision
        return [Variant("quick", as_it_is, lambda module, example: nn.Flatten())]

    they = Candidate("they", ways)
    for precision, theirs in (("fp32", "fp32"), ("bf16", "bf16"), ("int8", "bf16")):
        they.open(MODEL, EXAMPLE, precision)
        assert asked["they"] == they.precision(precision) == theirs
    assert [one.name for one in CANDIDATES if one.precision("int8") == "int8"] == ["vitrail-optimized"]


@pytest.mark.parametrize(
    ("name", "size", "libraries"),
    [
        ("vit_tiny_patch16_224", 32, ("timm", "huggingface")),
        ("deit_tiny_distilled_patch16_224", 48, ("timm", "huggingface")),
        ("poolformer_s12", 64, ("huggingface",)),
        ("swin_tiny_patch4_window7_224", 224, ("timm", "torchvision", "huggingface")),
        ("resnetv2_50x1_bit", 64, ("timm", "huggingface")),
    ],
)
@torch.inference_mode()
def test_peers_hold_the_same_weights(name, size, libraries):
    model = ModelSpec(name, imgsz=size).build()
    images = torch.randn(1, 3, size, size)
    expected = model(images)
    for library in libraries:
        got = PEERS[library](model, size)(images)
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max(), library


@torch.inference_mode()
def test_a_poolformer_with_timms_ending_fills_timm():
    model = ModelSpec("poolformer_s12", imgsz=32, set=("pooling=timm",)).build()
    images = torch.randn(1, 3, 32, 32)
    expected = model(images)
    assert (PEERS["timm"](model, 32)(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_model_missing_in_a_library_is_reported():
    mixer = ModelSpec("mixer_b16_224", set=("depth=1",)).build()
    for library in ("torchvision", "huggingface"):
        with pytest.raises(CandidateUnavailable, match="has no mixer_b16_224"):
            PEERS[library](mixer, 224)


def test_weights_that_do_not_fill_a_peer_are_reported():
    model = ModelSpec("vit_tiny_patch16_224", imgsz=32, set=("depth=2",)).build()
    with pytest.raises(CandidateUnavailable, match=r"our weights do not fill timm's blocks\.2\."):
        PEERS["timm"](model, 32)


def test_a_library_that_fails_to_start_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    model = create_model("vit_tiny_patch16_224", num_classes=5, dim=32, num_heads=2, depth=1, image_size=32)
    with pytest.raises(CandidateUnavailable, match="importing timm failed"):
        PEERS["timm"](model, 32)


def test_engines_agree_on_the_output():
    pytest.importorskip("openvino", reason="pip install 'vitrail[bench]' brings the engines")
    pytest.importorskip("onnxruntime", reason="pip install 'vitrail[bench]' brings the engines")
    model = ModelSpec("vit_tiny_patch16_224", imgsz=32).build()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    for one in CANDIDATES:
        if one.fragile:
            for way in one.open(model, images, "fp32"):
                got = way.prepare(model, images)(images)
                assert (got - expected).abs().max() <= 1e-4 * expected.abs().max(), (one.name, way.name)
