"""The loop against a plain twin, and settings that must not change its result."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.data.mixup import Mix
from vitrail.errors import DataError
from vitrail.models import create_model
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.log import read_log
from vitrail.training.loop import NonFiniteLoss, fit, validate
from vitrail.training.recipe import with_recipe
from vitrail.training.reporters import NullReporter
from vitrail.training.schedule import Schedule, Steps
from vitrail.training.setup import bind_task, build_trainer, open_data
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train
from vitrail.training.trainer import Trainer

Make = Callable[..., TrainConfig]


def session(config: TrainConfig, **changes: Any) -> Trainer:
    config, _ = with_recipe(config)
    splits = open_data(config)
    world = SingleProcess(torch.device("cpu"))
    run = build_trainer(config, world, bind_task(config, splits), NullReporter(), StopRequest())
    return replace(run, **changes)


def weights(config: TrainConfig) -> dict[str, Tensor]:
    run = session(config)
    fit(run)
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max((one[name] - two[name]).abs().max().item() for name in one)


def apart_in_effect(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Leave out the bias of queries, keys and values: that of the keys moves no softmax, so its gradient is rounding,
    and AdamW makes whole steps of it."""
    return apart({name: value for name, value in one.items() if not name.endswith("qkv.bias")}, two)


def test_the_loop_equals_a_plain_one(tiny: Make) -> None:
    """The twin knows nothing of sessions: it reads the batches and writes the update out."""
    config = tiny(drop_path=0.0, mixup=0.4, smoothing=0.1, clip_grad=0.5, warmup=0.3)
    run = session(config)
    twin = bind_task(config, open_data(config)).model.train()
    mix, step = Mix(10, mixup=0.4), 0
    schedule, length = Schedule(1e-3, config.min_lr, 0.3), Steps(20)
    first = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for epoch in range(2):
        for batch in run.train_data.epoch(epoch):
            images, targets = mix(batch.images, batch.labels, config.seed, step)
            loss = cross_entropy(twin(images), targets, label_smoothing=0.1)
            twin.zero_grad()
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in twin.parameters()]).norm()  # pyright: ignore
            lr, step = schedule.rate(length.share(step, 0.0)), step + 1
            with torch.no_grad():
                for name, p in twin.named_parameters():
                    gradient = p.grad * min(1.0, 0.5 / norm)  # pyright: ignore
                    decay = 0.05 if p.ndim > 1 and name.endswith("weight") else 0.0
                    first[name].lerp_(gradient, 0.1)
                    second[name].lerp_(gradient**2, 0.001)
                    m, v = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                    p.mul_(1 - lr * decay).sub_(lr * m / (v.sqrt() + 1e-8))
    fit(run)
    assert step == run.at.step == 20
    assert apart_in_effect(run.model.state_dict(), twin.state_dict()) < 2e-5


def test_parts_of_a_batch_do_not_change_the_result(tiny: Make) -> None:
    whole = weights(tiny(drop_path=0.0, epochs=1, mixup=0.3, cutmix=0.5))
    for parts in (3, 7):
        cut = weights(tiny(drop_path=0.0, epochs=1, mixup=0.3, cutmix=0.5, grad_accum=parts))
        assert 0 < apart_in_effect(whole, cut) < 2e-5


def test_workers_and_validation_do_not_change_the_result(tiny: Make) -> None:
    alone = weights(tiny(eval_every=2, drop_path=0.5))
    assert apart(alone, weights(tiny(eval_every=1, drop_path=0.5, workers=1))) == 0.0
    assert apart(alone, weights(tiny(eval_every=2, drop_path=0.5, seed=1))) > 0.0


def test_drop_path_differs_from_step_to_step_and_repeats(tiny: Make) -> None:
    run = session(tiny())
    drawn = []
    for step in (0, 1, 0):
        run.at.step = step
        run.seed_step()
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_the_model_learns(tiny: Make) -> None:
    model = ("dim=32", "depth=2", "num_heads=2", "patch_size=2")
    run = session(tiny(set=model, epochs=10, batch=60, lr=1e-2, drop_path=0.0, augment="none"))
    fit(run)
    metrics = validate(run, run.val_data)
    assert metrics is not None and metrics["top1"] > 0.5


def test_frozen_parameters_do_not_change(tiny: Make) -> None:
    config = tiny(freeze="backbone", epochs=1)
    start = bind_task(config, open_data(config)).model.state_dict()
    end = weights(config)
    for name in start:
        assert torch.equal(start[name], end[name]) == name.startswith("backbone"), name


def test_bf16_stays_close_to_fp32(tiny: Make) -> None:
    one, two = weights(tiny(epochs=1)), weights(tiny(epochs=1, precision="bf16"))
    assert all(value.dtype == torch.float32 for value in two.values())
    assert 0 < apart(one, two) < 5e-3


@pytest.mark.parametrize("fault", ["nan loss", "inf loss", "nan gradient"])
def test_nan_loss_stops_before_the_update_and_names_the_batch(tiny: Make, tmp_path: Path, fault: str) -> None:
    config = tiny(epochs=1)
    for at in (0, 4):
        run = session(config, folder=tmp_path)
        task: Any = run.task
        right, calls, held = task.objective, [0], {}

        def wrong(outputs: Any, images: Tensor, targets: Tensor) -> Tensor:
            calls[0] += 1  # noqa: B023
            loss = right(outputs, images, targets)  # noqa: B023
            if calls[0] != at + 1:  # noqa: B023
                return loss
            held.update({name: value.clone() for name, value in run.model.state_dict().items()})  # noqa: B023
            if fault == "nan gradient":
                return loss + (outputs[0] * 0).sum().sqrt()
            return loss * float(fault.split()[0])

        task.objective = wrong
        with pytest.raises(NonFiniteLoss, match=f"in step {at + 1}") as caught:
            fit(run)
        assert len(str(caught.value).splitlines()) <= 6
        assert run.at.step == at and apart(run.model.state_dict(), held) == 0.0
        facts = json.loads((tmp_path / "diverged.json").read_text())
        batch = next(iter(run.train_data.epoch(0, at)))
        assert facts["step"] == at
        assert facts["samples"] == [run.train_data.dataset.ids[i] for i in batch.index]


def test_early_stop_after_so_many_validations_without_a_better_one(tiny: Make, tmp_path: Path) -> None:
    summary = train(tiny(epochs=50, patience=2, lr=1e-9, min_lr=0.0))
    rows = read_log(tmp_path / "run" / "metrics.jsonl", "epoch")
    best = max(i for i, row in enumerate(rows) if row["best"])
    assert len(rows) == best + 3 < 50 and summary.epochs == len(rows)


def test_a_run_in_minutes_ends_on_time_with_its_last_weights_measured(tiny: Make, tmp_path: Path) -> None:
    summary = train(tiny(minutes=0.01, epochs=10**6))
    assert 0.6 <= summary.seconds < 20
    rows = read_log(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert rows[-1]["step"] == summary.steps == len(read_log(tmp_path / "run" / "metrics.jsonl", "step"))


def test_a_teacher_in_a_model_folder_is_followed(tiny: Make, tmp_path: Path) -> None:
    train(tiny(out=str(tmp_path / "teacher"), epochs=1))
    student = tiny(
        model="deit_tiny_distilled_patch16_224",
        teacher=str(tmp_path / "teacher" / "weights" / "best"),
        distill="soft",
        distill_alpha=1.0,
        smoothing=0.0,
        lr=1e-2,
        epochs=4,
    )
    train(student)
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "metrics.jsonl", "step")]
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_folder_holds_all_that_is_promised(tiny: Make, tmp_path: Path) -> None:
    summary = train(tiny(ema=0.9), command="vitrail train digits")
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} >= {
        *("config.yaml", "metrics.jsonl", "results.csv", "env.json", "summary.json", "weights", "state")
    }
    assert list(folder.glob("events.*"))
    assert json.loads((folder / "summary.json").read_text())["top1"] == summary.metrics["top1"]
    assert [row["step"] for row in read_log(folder / "metrics.jsonl", "step")] == list(range(1, 21))
    import vitrail

    best = vitrail.load_model(folder / "weights" / "best")
    assert best.labels == tuple("0123456789") and best.preprocess.size == 8
    assert summary.parameters == sum(p.numel() for p in best.parameters())
    again = session(tiny())
    again.model.load_state_dict(best.state_dict())
    metrics = validate(again, again.val_data)
    assert metrics is not None and metrics["top1"] == summary.validation["val_top1"]


def test_the_result_is_measured_once(tiny: Make, tmp_path: Path) -> None:
    """The summary quotes the evaluation, which is that of the weights as anyone may load them."""
    from vitrail.inference.evaluate import evaluate
    from vitrail.tasks.classify.evaluation import ClassificationEvaluation
    from vitrail.tasks.evaluation_file import read_evaluation

    summary = train(tiny(epochs=1, precision="bf16"))
    kept = read_evaluation(tmp_path / "run" / "evaluation.json")
    again = evaluate(tmp_path / "run", "digits", split="test")
    assert summary.split == "test" and kept.samples == again.samples == 359
    assert (kept.form, kept.precision) == ("plain", "fp32")  # whatever the run was trained in
    assert isinstance(kept, ClassificationEvaluation)
    metrics = summary.metrics
    assert metrics["top1"] == kept.top1.value == again.top1.value and metrics["loss"] == kept.calibration.nll
    assert metrics["top5"] == (kept.top5.value if kept.top5 else None) == (again.top5.value if again.top5 else None)


def test_unreadable_images_are_skipped_in_every_epoch(tiny: Make, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for kind, shade in (("dark", 20), ("light", 220)):
            place = tmp_path / "shades" / split / kind
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (30 + i, 30), shade + i).save(place / f"{i}.png")
            (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    shades = tiny(data=str(tmp_path / "shades"), batch=4, epochs=1, bad="skip")
    assert train(shades).split == "test"
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["samples"] == 6
    with pytest.raises(DataError, match=r"broken\.png"):
        train(replace(shades, bad="fail", out=str(tmp_path / "strict")))


def test_the_baseline_of_a_validation_is_that_of_the_images_that_were_read(tiny: Make, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 2)):
        for kind, shade, broken in (("dark", 20, 3), ("light", 220, 0)):
            place = tmp_path / "uneven" / split / kind
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (30 + i, 30), shade + i).save(place / f"{i}.png")
            for i in range(broken):
                (place / f"broken{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    run = session(tiny(data=str(tmp_path / "uneven"), batch=4, epochs=1, bad="skip"))
    assert validate(run, run.val_data) is not None
    assert run.watch.baseline == {"top1": 0.5}  # with the unreadable images it would be 5 of 7


def test_weights_to_start_from_are_used(tiny: Make, tmp_path: Path) -> None:
    train(tiny(epochs=1))
    best = tmp_path / "run" / "weights" / "best"
    config = tiny(weights=str(best), out=str(tmp_path / "more"))
    built = bind_task(config, open_data(config)).model.state_dict()
    assert apart(built, load_file(best / "model.safetensors")) == 0.0


def test_a_stopped_run_resumes_to_the_same_bits(tiny: Make, tmp_path: Path) -> None:
    config = tiny(ema=0.9, mixup=0.2)
    train(replace(config, out=str(tmp_path / "whole")))
    stop = StopRequest()

    class After(NullReporter):
        def step(self, moment: Any) -> None:
            if moment.step == 13:
                stop.request(143)

    with pytest.raises(Interrupted) as caught:
        train(config, After(), stop)
    assert caught.value.code == 143
    train(TrainConfig(resume=config.out))
    one, two = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("whole", "run"))
    assert apart(one, two) == 0.0


def test_the_callers_rng_and_threads_are_restored(tiny: Make) -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(tiny(epochs=1, threads=2))
    assert torch.equal(torch.rand(3), want) and torch.get_num_threads() == threads


def test_seed_makes_the_first_weights(tiny: Make) -> None:
    splits = open_data(tiny())
    one, same, other = (bind_task(tiny(seed=seed), splits).model.state_dict() for seed in (0, 0, 1))
    assert apart(one, same) == 0.0 < apart(one, other)
    assert create_model("vit_tiny_patch16_224", num_classes=10, depth=1).config.num_classes == 10


def test_the_card_names_the_split_and_no_top5_of_few_classes(tiny: Make, tmp_path: Path) -> None:
    table = tmp_path / "pets.csv"
    names = ("cat", "dog", "fox", "owl")
    for number in range(24):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
    table.write_text("path,label\n" + "".join(f"{number}.png,{names[number % 4]}\n" for number in range(24)))
    summary = train(tiny(data=str(table), epochs=1, batch=8))
    rows = read_log(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert summary.metrics["top5"] is None and [row["top5"] for row in rows] == [None]
    card = (tmp_path / "run" / "weights" / "best" / "README.md").read_text()
    assert "Measured on pets.csv (val split)." in card and "top5" not in card
