"""Trials before a run (batch, rate, memory, time) are right, and leave no files or state."""

import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.machine.host_memory import available, peak_of, resident, trim_on_free
from vitrail.training.batch_size import SHARE, by_line, by_trial, largest_batch, useful_batch
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.dry_run import dry_run
from vitrail.training.probe import try_step, untouched
from vitrail.training.rate_finder import HIGHEST, LOWEST, below_the_least, find_rate, smooth
from vitrail.training.recipe import with_recipe
from vitrail.training.reporters import NullReporter
from vitrail.training.setup import bind_task, build_trainer, default_batch_size, open_data
from vitrail.training.signals import StopRequest
from vitrail.training.train import make_run, train
from vitrail.training.trainer import Trainer

Make = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def session(config: TrainConfig) -> Trainer:
    config, _ = with_recipe(config)
    splits = open_data(config)
    return build_trainer(config, SingleProcess(CPU), bind_task(config, splits), NullReporter(), StopRequest())


def whole_state(run: Trainer) -> list[torch.Tensor]:
    state = [value.clone() for value in run.model.state_dict().values()]
    with run.ema.applied():
        state += [value.clone() for value in run.model.state_dict().values()]
    return state


def test_trials_restore_weights_optimizer_and_average(tiny: Make) -> None:
    run = session(tiny(ema=0.9))
    before = whole_state(run)
    with untouched(run):
        try_step(run, run.task.dummy_batch(8), rate=0.1)
        assert any(not torch.equal(a, b) for a, b in zip(before, whole_state(run), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, whole_state(run), strict=True))
    assert not run.optimizer.state and all(p.grad is None for p in run.model.parameters())


def test_the_lr_finder_stops_at_divergence_and_restores_the_state(tiny: Make) -> None:
    run = session(tiny(clip_grad=0))
    before = whole_state(run)
    curve = find_rate(run, steps=60)
    assert LOWEST < curve.suggestion < HIGHEST
    assert curve.losses[curve.rates.index(curve.suggestion)] < curve.losses[0]
    assert run.at.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, whole_state(run), strict=True))


def test_a_loss_that_only_rises_gives_no_rate() -> None:
    with pytest.raises(VitrailError, match="Give lr yourself"):
        below_the_least([1e-3, 1e-2, 1e-1], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noise_at_small_rates_does_not_decide(noise: float, seed: int) -> None:
    """A few dozens of images: batches of eight differ by more than all updates gain; the least loss is at 1e-3."""
    torch.manual_seed(seed)
    rates = [LOWEST * (HIGHEST / LOWEST) ** (i / 99) for i in range(100)]
    true = [1.4 - 0.5 / (1 + (1e-4 / rate) ** 1.5) + 0.5 / (1 + (1e-2 / rate) ** 1.5) for rate in rates]
    seen = [loss + noise * torch.randn(()).item() for loss in true]
    assert 5e-5 < below_the_least(rates, smooth(seen, width=6)) < 3e-3


@pytest.mark.parametrize("limit", [10**9, 3 * 10**9, 17 * 10**9])
@pytest.mark.parametrize("each", [10**5, 3 * 10**6, 2 * 10**8])
def test_the_line_lands_within_ten_percent_below_the_true_maximum(limit: int, each: int) -> None:
    """Memory is a line with a step of noise; nothing above the limit is ever tried."""
    seen = []

    def peak(size: int) -> int:
        seen.append(size)
        return 4 * 10**8 + size * each + (size * 7919 % 13) * 10**5

    found = by_line(peak, limit, most=10**9)
    true = (limit - 4 * 10**8) // each
    assert 0.9 * true - 1 <= found <= 1.02 * true + 1
    assert max(seen) <= max(true, 2)


@pytest.mark.parametrize("true", [0, 1, 2, 3, 24, 25, 100, 127, 128, 1000])
def test_trial_lands_within_ten_percent_below_the_true_maximum(true: int) -> None:
    found = by_trial(lambda size: size <= true, most=500)
    assert 0.9 * min(true, 500) <= found <= min(true, 500)


@pytest.mark.parametrize("flat", [1, 3, 8, 13, 100, 129])
def test_the_memory_line_starts_after_the_bend(flat: int) -> None:
    """While activations of up to `flat` images are less than the moments, memory does not grow."""
    room, fixed, each = 10**10, 10**9, 2 * 10**7
    found = by_line(lambda size: fixed + max(size, flat) * each, limit=room, most=10**9)
    assert 0.95 * (room - fixed) / each <= found <= (room - fixed) / each


@pytest.mark.parametrize("limit", [2.1, 2.6, 3.2, 3.9])
def test_a_bend_near_the_limit_is_measured_beyond(limit: float) -> None:
    """From 24 images on memory doubles each 24: the last bend is between two doublings, 16 and 32."""
    true = int(limit * 24)
    found = by_line(lambda size: max(24, size) * 10**7, limit=int(limit * 24 * 10**7), most=10**9)
    assert 0.9 * true <= found <= 1.05 * true


def use_under(room: int, config: TrainConfig) -> tuple[int, int, int, int]:
    """Let the batch be found under a limit; return the memory of two such steps and of ten, the batch, the images."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.training.batch_size.available", lambda device: room)
        patch.setattr("vitrail.training.batch_size._VISIBLE", 64 * 2**20)
        run = session(config)
        with trim_on_free():
            start = resident()
        found = largest_batch(run, most=len(run.train_data.dataset))

    def steps(count: int) -> int:
        return peak_of(lambda: [try_step(run, run.task.dummy_batch(found)) for _ in range(count)], CPU) - start

    with untouched(run):
        with trim_on_free():
            used = steps(2)
        return used, steps(10), found, len(run.train_data.dataset)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to hold no more than is in use")
@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_measured_line_predicts_the_memory_of_a_real_step(tiny: Make, parts: int) -> None:
    """Auto batch against this machine, under a limit of 400 MB: a step uses the share, training stays below the limit.

    In a process of its own, as a training is: here, memory that other tests gave back would blur the measure.
    """
    room = 400 * 2**20
    config = tiny(
        imgsz=64, batch=parts, grad_accum=parts, set=("dim=64", "depth=2", "num_heads=2", "patch_size=4"), epochs=1
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        used, taken, found, images = own.submit(use_under, room, config).result()
    assert 0.9 * SHARE * room < used < 1.04 * SHARE * room, (used, taken, found)
    assert used < taken < room
    assert found < images and found % parts == 0


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("images", [3, 8, 40, 300, 1259, 5000, 50_000, 1_281_167])
def test_a_useful_batch_leaves_updates(images: int, parts: int) -> None:
    """Never the whole set at once, where it has more than a handful, and never less than the usual batch."""
    batch = useful_batch(images, parts)
    assert batch % parts == 0 and batch >= default_batch_size(images, parts)
    assert images // batch >= (32 if images >= 32 * 128 else 8 if images >= 64 else 5 if images >= 40 else 0)


def seen(size: int) -> int:
    """Return how much of `size` bytes, taken and given back, the measure sees."""
    before = resident()
    return peak_of(lambda: bytearray(b"\1") * size, CPU) - before


def test_peak_memory_is_measured() -> None:
    size = 200 * 2**20
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        assert 0.9 * size < own.submit(seen, size).result() < 1.3 * size
    assert available(CPU) > 0


def test_auto_is_resolved_into_numbers_that_the_config_keeps(tiny: Make, tmp_path: Path) -> None:
    config = tiny(batch="auto", lr="auto")
    run = make_run(config, SingleProcess(CPU), open_data(config), NullReporter(), StopRequest())
    assert isinstance(run.config.batch, int) and isinstance(run.config.lr, float)
    assert run.train_data.order.batch_size == run.config.batch <= 128
    assert run.train_data.steps >= 9
    assert run.schedule.lr == run.config.lr


def test_a_dry_run_prints_the_sizes_and_leaves_no_files(tiny: Make, tmp_path: Path) -> None:
    before = set(Path.cwd().iterdir())
    plan = dry_run(tiny())
    assert plan.steps == 20 and plan.steps_per_epoch == 10 and plan.counts["train"] == 1259
    assert plan.learning == plan.parameters > 1000 and plan.peak < plan.capacity and plan.seconds > 0
    assert "fits" in "\n".join(plan.lines()) and "2 x" not in plan.title
    assert set(Path.cwd().iterdir()) == before and not list(tmp_path.iterdir())
    part = dry_run(tiny(freeze="backbone"))
    assert part.learning < part.parameters == plan.parameters


def test_a_dry_run_fails_as_the_run_would(tiny: Make) -> None:
    with pytest.raises(VitrailError, match="Did you mean"):
        dry_run(tiny(model="vit_tinny_patch16_224"))


def test_a_run_that_cannot_start_leaves_no_folder(tiny: Make, tmp_path: Path) -> None:
    for wrong, said in (
        ({"model": "swim_tiny_patch4_window7_224"}, "swin_tiny"),
        ({"data": "digit"}, "digit"),
        ({"data": ""}, "Nothing to learn from"),
        ({"set": ("dept=2",)}, "depth"),
        ({"batch": 5000}, "at most 1259"),
        ({"batch": 3, "grad_accum": 4}, "at least 4"),
        ({"freeze": "5"}, "1 stages"),
        ({"device": "cuda:9"}, "not there"),
        ({"device": "gpu"}, "Unknown device"),
        ({"teacher": "nowhere"}, "not a model folder"),
    ):
        with pytest.raises(VitrailError, match=said) as caught:
            train(tiny(**wrong))
        assert len(str(caught.value).splitlines()) <= 6
        assert not list(tmp_path.iterdir()), wrong
