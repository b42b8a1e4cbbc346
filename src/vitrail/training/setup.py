"""Build the trainer of a config: datasets and model of its task, optimizer, schedule, data loaders."""

from copy import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from vitrail.cache import fingerprint
from vitrail.data.folds import split_fold
from vitrail.edits.edit import apply_edits, edits_to_json
from vitrail.edits.lora import lora_of, merge_lora, train_adapters
from vitrail.errors import VitrailError
from vitrail.fused.train_blocks import fuse_for_training, training_kernels
from vitrail.machine.system_info import usable_cores
from vitrail.parts.model import Model
from vitrail.parts.recomputation import recompute_blocks
from vitrail.tasks import find_task
from vitrail.tasks.task import BatchLoader, DataSplits, RunSpec, Share, TrainingTask
from vitrail.training.config import RunConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.ema import Ema, LastAverage, NoEma
from vitrail.training.layer_drop import drop_layers
from vitrail.training.optimizer import make_optimizer
from vitrail.training.param_groups import freeze, frozen_layers, hidden_matrices, parameter_groups
from vitrail.training.precision import choose_precision
from vitrail.training.reporters import Reporter
from vitrail.training.schedule import Length, Schedule, Seconds, Steps
from vitrail.training.signals import StopRequest
from vitrail.training.trainer import Trainer
from vitrail.training.unfreezing import GradualUnfreezing, SteadyFreeze
from vitrail.training.watch import TrainingWatch
from vitrail.training.wrapper import TrainingWrapper

_MOST_WORKERS = 8
"""Maximum default number of data-loading workers of a rank; with more, memory bandwidth is the bottleneck."""


def open_data(config: RunConfig) -> DataSplits:
    """Open the dataset of a run, with train and val splits.

    Raises:
        DataError: it has no train or no val split.
    """
    task = find_task(config.task)
    open_run = getattr(task, "open_run", None)  # of a task with options for the data format
    if config.folds:  # a fold is the val split, so none is held out
        config = copy(config)
        object.__setattr__(config, "val_share", 0.0)
    splits = task.open(config.data, config.val_share, config.bad) if open_run is None else open_run(config)
    if config.folds:
        splits = split_fold(splits, config.folds, config.fold or 0)
    splits.require("train")
    splits.require("val")
    return splits


def bind_task(config: RunConfig, splits: DataSplits) -> TrainingTask:
    """Build the model of a run, bound to its task and data."""
    overrides = config.model_overrides()
    if config.drop_path is not None:
        overrides["drop_path"] = config.drop_path
    run = RunSpec(config.data, config.model, config.weights, overrides, config.seed)
    return find_task(config.task).bind(config, run, splits)


def build_trainer(
    config: RunConfig, world: SingleProcess, task: TrainingTask, reporter: Reporter, stop: StopRequest
) -> Trainer:
    """Build the trainer of a task.

    Args:
        config: config of the run; batch size, learning rate and the fields of the recipe must be resolved.
        world: processes of the run.
        task: task of the run, bound to model and data.
        reporter: receives progress.
        stop: request to stop the run.

    Raises:
        VitrailError: options of the config cannot be combined, or the model does not support them.
    """
    assert isinstance(config.batch, int) and isinstance(config.lr, int | float), "auto must be resolved"
    assert config.layer_decay is not None, "defaults of the recipe must be filled in"
    _check_batch_size(config, world)
    task.to(world.device)
    model = task.model
    unfreezing = make_unfreezing(model, config, world)
    frozen = [] if config.unfreeze else freeze(model, config.freeze)
    if config.lora:
        train_adapters(model)
    if world.device.type == "cpu" and not config.compile:
        fuse_for_training(model)
    if config.layer_drop:
        _check_layer_drop(config, world)
        drop_layers(model, config.layer_drop)
    if config.checkpointing:
        _checkpoint_activations(model, config)
    wrapped: Any = TrainingWrapper(task)
    if config.compile:
        wrapped.compile()
    wrapped = world.wrap(wrapped)
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    companions: nn.Module | None = getattr(task, "companions", None)
    if companions is not None:
        groups.append({"params": list(companions.parameters()), "scale": 1.0, "weight_decay": 0.0})
    hidden = hidden_matrices(model) if config.optimizer == "muon" else ()
    optimizer = make_optimizer(config.optimizer, groups, hidden, config.beta2)
    train_data, val_data = loaders(config, world, task)
    kernels = training_kernels(model)
    return Trainer(
        config=config,
        world=world,
        model=model,
        task=task,
        metrics=find_task(config.task).metrics,
        wrapped=wrapped,
        frozen=frozen,
        unfreezing=unfreezing or SteadyFreeze(frozen),
        precision=choose_precision(config.precision, world),
        optimizer=optimizer,
        ema=build_average(config, model, train_data.steps),
        schedule=Schedule(config.lr, config.min_lr, config.warmup_share(), config.scheduler),
        length=build_length(config, train_data.steps),
        train_data=train_data,
        val_data=val_data,
        reporter=reporter,
        stop=stop,
        watch=TrainingWatch(getattr(task, "chance", None), clip=config.clip_grad),
        facts={
            **machine_facts(world),
            **({} if kernels is None else {"training kernels": kernels[0]}),
            "data": data_facts(task, train_data, val_data),
            **edit_facts(task),
        },
    )


def add_adapters(model: Model, config: RunConfig) -> None:
    """Merge the LoRA adapters of the pretrained weights, and add new ones if `config.lora` is set.

    Raises:
        VitrailError: there are no pretrained weights, or no such layers.
    """
    merge_lora(model)
    if not config.lora:
        return
    if config.weights is None:
        raise VitrailError("lora adapts trained weights, and these are random. Add weights=FILE, or pretrained.")
    apply_edits(model, lora_of(model, config.lora, config.lora_alpha or 2.0 * config.lora, config.lora_targets))


def make_unfreezing(model: Model, config: RunConfig, world: SingleProcess) -> GradualUnfreezing | None:
    """Return the schedule of gradual unfreezing, or None without one.

    Raises:
        VitrailError: there are several processes.
    """
    if not config.unfreeze:
        return None
    if world.size > 1:
        raise VitrailError("unfreeze needs a single process: DDP and FSDP fix the learning weights at the start.")
    return GradualUnfreezing(frozen_layers(model, config.freeze), config.unfreeze)


def build_average(config: RunConfig, model: nn.Module, steps: int) -> Ema | LastAverage | NoEma:
    """Return the weight average: exponential, of the last epochs, or none; `steps` are the updates of an epoch."""
    if config.average:
        return LastAverage(model, config.average, steps)
    return Ema(model, config.ema) if config.ema else NoEma()


def train_size(splits: DataSplits) -> int:
    """Return the size of the training data in the unit of a batch: estimated tokens, or samples."""
    train = splits.require("train")
    return getattr(train, "tokens", len(train))


def loaders(config: RunConfig, world: SingleProcess, task: TrainingTask) -> tuple[BatchLoader, BatchLoader]:
    """Return the loaders of training and validation batches."""
    assert isinstance(config.batch, int)
    share = Share(
        *(world.rank, world.size, world.device, config.seed, config.workers or 0, config.bad),
        precision=choose_precision(config.precision, world),
    )
    sizes = config.batch, eval_batch(config, world)
    train_data, val_data = task.loaders(share, *sizes)
    workers = default_workers(world) if config.workers is None else 0
    in_memory = getattr(train_data.dataset, "pixels", None) is not None  # a copy is cheaper than a worker process
    return (
        task.loaders(share._replace(workers=workers), *sizes) if workers and not in_memory else (train_data, val_data)
    )


def default_workers(world: SingleProcess) -> int:
    """Return the default number of data-loading workers of a rank: its share of the cores with a GPU, else 0.

    Ranks on one machine share its cores; one core of each rank is left to the training process.
    """
    if world.device.type != "cuda":
        return 0
    ranks = max(min(world.size, torch.cuda.device_count()), 1)
    return max(min(int(usable_cores() / ranks) - 1, _MOST_WORKERS), 0)


def default_batch_size(samples: int, parts: int = 1, largest: int = 128, updates: int = 8) -> int:
    """Return the default global batch size: `largest`, or for small datasets the size with enough updates an epoch.

    Args:
        samples: size of the training set.
        parts: divisor of the batch size: world size times gradient accumulation steps.
        largest: batch size for large datasets.
        updates: minimum number of updates an epoch. Training from scratch needs more than fine-tuning: a small DeiT
            reaches 87 % in 40 epochs on the 1,258 digits with batches of 128, and 97 % with batches of 32.

    Example:
        >>> [default_batch_size(samples) for samples in (50_000, 300, 40, 5)]
        [128, 37, 8, 5]
        >>> [default_batch_size(samples, updates=32) for samples in (50_000, 1_258, 300, 40)]
        [128, 39, 16, 8]
        >>> default_batch_size(300, parts=4)
        36
    """
    batch = min(largest, max(samples // updates, min(16, samples // 8), min(8, samples)))
    return max(batch // parts, 1) * parts


def eval_batch(config: RunConfig, world: SingleProcess) -> int:
    """Return the global batch size of validation: two training micro-batches, as no activations are kept."""
    assert isinstance(config.batch, int)
    return max(2 * config.batch // config.grad_accum, world.size)


def build_length(config: RunConfig, steps: int) -> Length:
    """Return the length of the run: a time limit, or a number of updates."""
    if config.minutes is not None:
        return Seconds(config.minutes * 60)
    assert config.epochs is not None, "defaults of the recipe must be filled in"
    return Steps(config.epochs * steps)


def data_facts(task: TrainingTask, train_data: BatchLoader, val_data: BatchLoader) -> dict[str, Any]:
    """Return hashes of the data, by which a resumed run detects changes: samples, and metadata such as class names."""
    by_name = (("training", train_data), ("validation", val_data))
    samples = {name: _size_and_digest(loader.dataset) for name, loader in by_name}
    outputs = {key: fingerprint(value) for key, value in task.metadata().items()}
    return {"samples": samples, "outputs": outputs}


def edit_facts(task: TrainingTask) -> dict[str, Any]:
    """Return the edits of the model, which a resumed run applies to a new model; empty without edits."""
    return {"edits": edits_to_json(task.model.edits)} if task.model.edits else {}


def _size_and_digest(dataset: Any) -> list[Any]:
    digest = dataset.digest() if hasattr(dataset, "digest") else fingerprint(*dataset.ids)
    return [len(dataset), digest]


def machine_facts(world: SingleProcess) -> dict[str, Any]:
    """Return the facts of hardware and software that bit-exact reproducibility depends on, apart from the config."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "device": str(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _checkpoint_activations(model: nn.Module, config: RunConfig) -> None:
    """Recompute the activations of blocks in the backward pass.

    Raises:
        VitrailError: a second forward pass would change state, or the model has no lists of blocks.
    """
    if config.compile:
        raise VitrailError("checkpointing and compile are not combined: torch.compile chooses what is recomputed.")
    stateful = next((each for each in model.modules() if isinstance(each, BatchNorm) or _stores_loss(each)), None)
    if stateful is not None:
        raise VitrailError(
            f"checkpointing computes blocks twice, and {type(stateful).__name__} of {config.model} counts each pass."
        )
    if not recompute_blocks(model):
        raise VitrailError(f"checkpointing computes blocks again, and {config.model} has no lists of blocks.")


def _stores_loss(module: nn.Module) -> bool:
    """Return whether a module stores an auxiliary loss in its forward pass."""
    return hasattr(module, "auxiliary_loss") and not hasattr(module, "blocks")


def _check_layer_drop(config: RunConfig, world: SingleProcess) -> None:
    """Raise an error if LayerDrop is combined with `compile` or several processes, which need all blocks."""
    if world.size > 1 or config.compile:
        cause = "compile" if config.compile else "torchrun"
        raise VitrailError(
            f"layer_drop={config.layer_drop} skips blocks by chance, which {cause} cannot follow.\n"
            "Train in one process without compile, or use drop_path."
        )


def _check_batch_size(config: RunConfig, world: SingleProcess) -> None:
    """Raise an error if a micro-batch of a rank would be empty."""
    assert isinstance(config.batch, int)
    least = world.size * config.grad_accum
    if config.batch < least:
        raise VitrailError(
            f"A batch of {config.batch} cannot be cut into {config.grad_accum} parts in {world.size} processes.\n"
            f"Use at least {least}, or a smaller grad_accum."
        )
