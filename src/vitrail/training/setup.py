"""From a config to a session: data, model, teacher, optimizer, each asked of its own room."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.data.augment import AUGMENTS, Augment
from vitrail.data.datasets import Splits, open_dataset
from vitrail.data.loading import eval_loader, train_loader
from vitrail.data.mixup import Mix
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.errors import VitrailError
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.models import create_model, make_config
from vitrail.native.image_resize import best_pixels
from vitrail.preprocess import Preprocess
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.ema import Ema, NoEma
from vitrail.training.objective import Distilled, Objective, Supervised, Teacher, TrainingWrapper
from vitrail.training.optimizer import make_optimizer
from vitrail.training.param_groups import freeze, parameter_groups
from vitrail.training.precision import choose_precision
from vitrail.training.reporters import Reporter
from vitrail.training.schedule import Length, Schedule, Seconds, Steps
from vitrail.training.signals import StopRequest
from vitrail.training.trainer import Trainer
from vitrail.weights.folder import is_model_folder, load_model


def open_data(config: TrainConfig) -> Splits:
    """Open the data of a run; it needs pictures to learn from and pictures to validate on."""
    if not config.data:
        raise VitrailError(
            "Nothing to learn from. Give a folder of class folders, a table or digits: vitrail train digits"
        )
    splits = open_dataset(config.data, val_share=config.val_share, bad=config.bad)
    splits.require("train")
    splits.require("val")
    return splits


def build_model(config: TrainConfig, splits: Splits) -> nn.Module:
    """Make the model of a run, with one output a class and the preprocessing that fits the pictures."""
    overrides: dict[str, Any] = {"num_classes": len(splits.classes), **config.model_overrides()}
    if overrides["num_classes"] != len(splits.classes):
        raise VitrailError(f"{splits.name} has {len(splits.classes)} classes; leave num_classes out of --set.")
    if config.drop_path is not None:
        overrides["drop_path"] = config.drop_path
    if config.imgsz is not None:
        overrides["image_size"] = config.imgsz
    frozen_config = make_config(config.model, **overrides)
    overrides.pop("image_size", None)
    overrides["preprocess"] = fitting(frozen_config.preprocess, frozen_config.in_channels, splits)
    torch.manual_seed(config.seed)  # the same first weights in every process
    return create_model(config.model, weights=config.weights, **overrides)


def fitting(preprocess: Preprocess, channels: int, splits: Splits) -> Preprocess:
    """Fit a variant's protocol to other pictures: grey ones, and small ones, whose border is not to be cropped away."""
    if preprocess.channels != channels:
        mean, std = (sum(values) / len(values) for values in (preprocess.mean, preprocess.std))
        preprocess = replace(preprocess, mean=(mean,) * channels, std=(std,) * channels)
    pixels = splits.require("train").pixels
    if pixels is not None and max(pixels.shape[-2:]) <= preprocess.size:
        preprocess = replace(preprocess, crop=1.0)
    return preprocess


def build_session(
    config: TrainConfig, world: SingleProcess, splits: Splits, model: nn.Module, reporter: Reporter, stop: StopRequest
) -> Trainer:
    """Put a run together around its model. `config.batch` and `config.lr` must be numbers by now."""
    assert isinstance(config.batch, int) and not isinstance(config.lr, str), "auto is resolved before"
    _check_share(config, world)
    preprocess: Preprocess = model.config.preprocess  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
    model.to(world.device)
    frozen = freeze(model, config.freeze)
    student = TrainingWrapper(model)
    if config.compile:
        student.compile()
    elif world.device.type == "cpu":
        fuse_for_training(model)
    student = world.wrap(student)
    optimizer = make_optimizer(config.optimizer, parameter_groups(model, config.weight_decay, config.layer_decay))
    train_data, val_data = loaders(config, world, splits, preprocess)
    return Trainer(
        config=config,
        world=world,
        model=model,
        student=student,
        frozen=frozen,
        objective=build_objective(config, world, preprocess, len(splits.classes)),
        precision=choose_precision(config.precision, world),
        mix=Mix(len(splits.classes), mixup=config.mixup, cutmix=config.cutmix),
        optimizer=optimizer,
        ema=Ema(model, config.ema) if config.ema else NoEma(),
        schedule=Schedule(config.lr, config.min_lr, config.warmup_share(), config.scheduler),
        length=build_length(config, train_data.steps),
        train_data=train_data,
        val_data=val_data,
        labels=splits.classes,
        preprocess=preprocess,
        reporter=reporter,
        stop=stop,
        facts=machine_facts(world),
    )


def loaders(config: TrainConfig, world: SingleProcess, splits: Splits, preprocess: Preprocess) -> tuple[Any, Any]:
    """Return the loaders of training and validation batches."""
    assert isinstance(config.batch, int)
    share: Any = {"rank": world.rank, "world": world.size, "workers": config.workers, "bad": config.bad}
    share["device"] = world.device
    pixels = best_pixels(len(splits.require("train")))
    train = TrainTransform(preprocess, augmentation(config, splits), pixels)
    still = EvalTransform(preprocess, pixels)
    return (
        train_loader(splits.require("train"), train, config.batch, seed=config.seed, **share),
        eval_loader(splits.require("val"), still, eval_batch(config, world), **share),
    )


def usual_batch(pictures: int, parts: int = 1) -> int:
    """Return the global batch where none is asked for: 128, or of few pictures what makes eight updates an epoch.

    Args:
        pictures: size of the training set.
        parts: what the batch must be a multiple of: processes times accumulation steps.

    Example:
        >>> [usual_batch(pictures) for pictures in (50_000, 300, 40, 5)]
        [128, 37, 8, 5]
        >>> usual_batch(300, parts=4)
        36
    """
    batch = min(128, max(pictures // 8, min(8, pictures)))
    return max(batch // parts, 1) * parts


def eval_batch(config: TrainConfig, world: SingleProcess) -> int:
    """Return how many pictures are validated at a time: twice a training part, which also holds gradients."""
    assert isinstance(config.batch, int)
    return max(2 * config.batch // config.grad_accum, world.size)


def augmentation(config: TrainConfig, splits: Splits) -> Augment:
    """Return what training may do to a picture: a ready-made choice, and what was asked for beside it."""
    name = config.augment
    if name == "auto":
        small = splits.require("train").pixels is not None
        name = "digits" if config.data == "digits" else "small" if small else "photo"
    chosen = AUGMENTS[name]
    if config.randaugment is not None:
        policy = "rand" if config.randaugment else "none"
        chosen = replace(chosen, policy=policy, magnitude=config.randaugment)
    if config.crop_min is not None:
        chosen = replace(chosen, crop="resized", scale=(config.crop_min, 1.0))
    if config.erasing is not None:
        chosen = replace(chosen, erase=config.erasing)
    return chosen if config.flip is None else replace(chosen, flip=config.flip)


def build_length(config: TrainConfig, steps: int) -> Length:
    """Return how long the run is."""
    return Seconds(config.minutes * 60) if config.minutes is not None else Steps(config.epochs * steps)


def build_objective(config: TrainConfig, world: SingleProcess, preprocess: Preprocess, classes: int) -> Objective:
    """Return the loss of a run, with its teacher where one is asked for."""
    if config.teacher is None:
        return Supervised(config.smoothing)
    if not is_model_folder(config.teacher):
        raise VitrailError(
            f"The teacher {config.teacher} is not a model folder.\n"
            "Train one (weights/best of its run folder), or make one with vitrail convert."
        )
    model: Any = load_model(Path(config.teacher), world.device)
    if model.config.num_classes != classes:
        raise VitrailError(
            f"The teacher knows {model.config.num_classes} classes, the data has {classes}. They must be the same."
        )
    teacher = Teacher(model, model.preprocess, preprocess)
    return Distilled(
        config.smoothing, teacher, config.distill == "soft", config.distill_alpha, config.distill_temperature
    )


def machine_facts(world: SingleProcess) -> dict[str, Any]:
    """Return what a bit-exact repeat depends on beside the config."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "device": str(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _check_share(config: TrainConfig, world: SingleProcess) -> None:
    assert isinstance(config.batch, int)
    least = world.size * config.grad_accum
    if config.batch < least:
        raise VitrailError(
            f"A batch of {config.batch} cannot be cut into {config.grad_accum} parts in {world.size} processes.\n"
            f"Use at least {least}, or a smaller grad_accum."
        )
