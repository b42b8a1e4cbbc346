"""Optimized models on CUDA, as far as a CPU can test: outputs, cached groups, captured calls."""

from collections.abc import Callable

import pytest
import torch
from small_models import SMALL, relative, small
from torch import Tensor, nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.attention_groups import CudaGroupsCache
from vitrail.fused.cuda import CudaGraphClassifier, optimize_for_cuda
from vitrail.fused.cuda_attention import CudaWindowAttention
from vitrail.fused.cuda_graphs import LARGEST, MAX_RECORDINGS, Recordings
from vitrail.fused.grid_cache import MAX_GRIDS
from vitrail.grid import Grid
from vitrail.parts.positions import NoPosition
from vitrail.parts.regularisation import LayerScale


class Tape:
    """Fake CUDA graph: replays into the same memory, for the shape that it was made for only."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replayed = 0

    def record(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[Tensor], Tensor]:
        self.recorded.append(tuple(images.shape))
        given = images.clone()

        def replay(images: Tensor) -> Tensor:
            assert images.shape == given.shape and images.dtype == given.dtype
            self.replayed += 1
            return run(given.copy_(images)).clone()

        return replay


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_gives_the_same_output(name: str) -> None:
    model, tape = small(name), Tape()
    fast = optimize_for_cuda(model, torch.float32, tape.record)
    with torch.inference_mode():
        for side in (64, 64, 64, *([60] if SMALL[name].any_size else [])):
            images = torch.randn(2, 3, side, 64)
            assert relative(fast(images), model(images)) < 1e-5
    assert tape.recorded == [(2, 3, 64, 64)] and tape.replayed == 2


@pytest.mark.parametrize("name", ["vit", "swin official", "poolformer", "nat"])
def test_images_and_logits_are_fp32_in_any_precision(name: str) -> None:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want, got = model(images), optimize_for_cuda(model, torch.bfloat16, Tape().record)(images)
    assert got.dtype == torch.float32
    assert relative(got, want) < 5e-2


def test_an_optimized_classifier_keeps_its_attributes() -> None:
    model = small("swin official").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = optimize_for_cuda(model, torch.float32, Tape().record)
    assert isinstance(fast, CudaGraphClassifier) and not fast.training and model.training
    assert (fast.variant, fast.config, fast.preprocess) == (model.variant, model.config, model.preprocess)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        got, want = fast.features(images), model.eval().features(images)
    assert got.grid == want.grid and relative(got.tokens, want.tokens) < 1e-5


def test_window_groups_are_cached_after_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = optimize_for_cuda(small("swin official"), torch.float32, Tape().record)
    windows = [module for module in fast.modules() if isinstance(module, CudaWindowAttention)]
    assert len(windows) == 4
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        want = fast(images)
        monkeypatch.setattr(CudaGroupsCache, "_make", lambda *_: pytest.fail("made anew"))
        assert torch.equal(fast(images), want)
    images.requires_grad_()
    torch.autograd.grad(fast(images).sum(), images)  # tables made where no gradient can be asked serve this too


def test_few_grids_are_kept_and_a_recording_keeps_its_own() -> None:
    fast = optimize_for_cuda(small("swin official"), torch.float32, Tape().record)
    assert isinstance(fast, CudaGraphClassifier)
    with torch.inference_mode():
        for _ in range(2):
            fast(torch.zeros(1, 3, 64, 32))
        for side in range(68, 120, 4):
            fast.answer(torch.zeros(1, 3, side, 32))
    first = next(module for module in fast.modules() if isinstance(module, CudaWindowAttention))
    assert len(first.groups.tables) == MAX_GRIDS and Grid(16, 8) not in {grid for grid, _ in first.groups.tables}
    ((_, tables),) = fast.calls.replays.values()  # pyright: ignore[reportGeneralTypeIssues]
    assert Grid(16, 8) in {grid for grid, _ in tables[0]}  # pyright: ignore[reportIndexIssue]


def test_layer_scales_are_folded() -> None:
    model = small("vit")
    for block in model.backbone.stages[0].blocks:  # pyright: ignore[reportGeneralTypeIssues]
        block.scale1, block.scale2 = LayerScale(24, 0.3), LayerScale(24, -2.0)
        nn.init.normal_(block.scale1.gamma)
    fast, images = optimize_for_cuda(model, torch.float32, Tape().record), torch.randn(1, 3, 64, 64)
    assert not any(isinstance(module, LayerScale) for module in fast.modules())
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_rotary_positions_are_not_converted_and_reported() -> None:
    class Turning(NoPosition):
        def rotate(self, q, k, grid):
            return q, -k

    model = small("swin official")
    model.backbone.stages[0].blocks[0].token_mixer.position = Turning()  # pyright: ignore
    fast, images = optimize_for_cuda(model, torch.float32, Tape().record), torch.randn(1, 3, 64, 64)
    assert fast.unconverted == {"token mixer: its position is Turning": 1}  # pyright: ignore
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_cuda_graphs_recorded_and_evicted() -> None:
    tape = Tape()
    calls = Recordings(lambda images: images * 2, tape.record, list)
    once = torch.ones(3, 1)
    assert torch.equal(calls(once), once * 2) and not tape.recorded  # it may never come again
    calls(once)
    calls(once)
    assert tape.recorded == [(3, 1)] and tape.replayed == 2
    for n in range(MAX_RECORDINGS):
        calls(torch.ones(5, n))
    assert len(calls.replays) == MAX_RECORDINGS and tape.recorded == [(3, 1)]
    calls(once)
    calls(once)
    assert tape.recorded == [(3, 1)] * 2  # it was forgotten meanwhile
    assert torch.equal(calls(once.double()), once.double() * 2)  # another precision is another shape
    assert tape.recorded == [(3, 1)] * 2


def test_large_batches_and_gradients_are_not_recorded() -> None:
    tape = Tape()
    calls = Recordings(lambda images: images.sum(), tape.record, list)
    for images in (torch.ones(LARGEST + 1), torch.ones(2, requires_grad=True)):
        for _ in range(3):
            calls(images)
    assert not tape.recorded and not calls.replays


def test_other_devices_are_not_optimized() -> None:
    with pytest.raises(VitrailError, match="meta"):
        vitrail.optimize(small("vit").to("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SMALL)
def test_a_gpu_gives_the_same_output(name: str) -> None:
    model, images = small(name).cuda(), torch.randn(2, 3, 64, 64, device="cuda")
    fast = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        want = model(images)
        for _ in range(4):  # run, recorded, replayed
            assert relative(fast(images), want) < 1e-3
