"""Configuration of a training run: the fields of every run, joined with the options of its task.

This file imports no torch: the command line shows its help from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal

from vitrail.errors import VitrailError, unknown
from vitrail.tasks import DEFAULT, find_options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges
from vitrail.training.config_io import typed

RUNTIME = ("out", "resume", "dry_run", "workers", "device", "parallel", "save_steps", "save_seconds", "track", "bad")
"""Fields that do not change the updates made so far; a resumed run may be given other values.

`bad` is one of them: a run that fails on unreadable samples has met none in its updates.
"""


@dataclass(frozen=True)
class RunConfig(Options):
    """The fields of every training run; `config_class(task)` adds the options of a task.

    `batch` is **global**: all processes and all accumulation steps together make one batch.

    Example:
        >>> TrainConfig(data="digits", epochs=50, warmup=5).warmup_share()
        0.1
        >>> TrainConfig(data="digits", lr=-1.0)
        Traceback (most recent call last):
        ...
        vitrail.errors.VitrailError: lr is -1.0; it must be above 0. Try 1e-3, or lr=auto to have it found.
    """

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("task", "val_share", "bad"),
        "model": (
            "model",
            "weights",
            "set",
            "drop_path",
            "layer_drop",
            "freeze",
            "unfreeze",
            "lora",
            "lora_targets",
            "lora_alpha",
        ),
        "optimisation": (
            *("epochs", "minutes", "patience", "eval_every", "batch", "grad_accum", "lr", "min_lr", "warmup"),
            *("scheduler", "optimizer", "weight_decay", "clip_grad", "layer_decay", "ema"),
            *("average", "beta2"),
        ),
        "hardware": (
            "precision",
            "compile",
            "checkpointing",
            "device",
            "threads",
            "workers",
            "parallel",
            "deterministic",
        ),
        "run": ("seed", "folds", "fold", "out", "resume", "save_steps", "save_seconds", "track", "dry_run", "config"),
    }

    data: str = ""
    """Training data: a folder of class folders, a CSV or JSONL file, or the name of a known data set (digits)."""
    task: str = DEFAULT
    """Task to train for."""
    model: str = "auto"
    """Name of the model; list them with: vitrail models. auto takes that of the weights, else the task's default."""
    weights: str | None = None
    """Weights to start from: a file, a model folder, a hub id, or pretrained (the model's public weights). Random by
    default."""
    val_share: float = 0.1
    """Share of the training data to validate on, if the data has no validation split."""
    bad: Literal["fail", "skip"] = "fail"
    """Treatment of unreadable samples: stop and name them, or leave them out and count them."""
    set: tuple[str, ...] = ()
    """Fields of the model's config to replace, as name=value: --set dim=48 depths=2,2 num_heads=3,6."""

    epochs: int | None = None
    """Passes over the training data; default 100, or 20 if `weights` are fine-tuned."""
    minutes: float | None = None
    """Train for this long instead of `epochs`; the schedule follows the clock, so a resume is not bit for bit."""
    patience: int = 0
    """Stop after this many validations without a better metric; 0 never stops early."""
    eval_every: int = 1
    """Validate every so many epochs; the last epoch is always validated."""

    batch: int | Literal["auto"] | None = None
    """Global batch size; default 128, or 32 if `weights` are fine-tuned; smaller for few samples. auto (or -1) takes
    the largest that fits into memory while an epoch keeps 32 updates, and no less than the default."""
    grad_accum: int = 1
    """Gradient accumulation steps; the result does not depend on them."""

    lr: float | Literal["auto"] | None = None
    """Peak learning rate; default 1e-3, or 5e-4 if `weights` are fine-tuned. auto runs the learning-rate finder."""
    min_lr: float = 1e-6
    """Final learning rate."""
    warmup: float | None = None
    """Length of the linear warm-up: below 1 a share of the run, from 1 on a number of epochs; default 0.05, or 0.1 if
    `weights` are fine-tuned."""
    scheduler: str = "cosine"
    """Decay of the learning rate after the warm-up: cosine, linear, constant or inverse_sqrt."""
    optimizer: str = "adamw"
    """adamw, muon (orthogonal updates of matrices, AdamW for the rest; not with fsdp) or sgd (with momentum 0.9)."""
    weight_decay: float = 0.05
    """Weight decay; not applied to biases, norms, tokens and position tables."""
    clip_grad: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    layer_decay: float | None = None
    """Factor on the learning rate per block away from the head; default 1 (one rate for all), or 0.75 if `weights` are
    fine-tuned."""
    freeze: str = "none"
    """Frozen part: none, embedding, a number n (embedding and the first n stages), or backbone."""
    unfreeze: int = 0
    """Unfreeze the layers of the frozen part one after the other, from the last to the first, over so many epochs; 0
    keeps them frozen."""
    lora: int = 0
    """Train adapters of this rank at the linear layers of the blocks, and the head; the weights are frozen (LoRA).
    0 is off."""
    lora_targets: tuple[str, ...] = ()
    """Layers that get adapters, by the last part of their names, such as qkv proj fc1; default: all linear layers."""
    lora_alpha: float | None = None
    """The adapters are scaled by alpha / rank; default: twice the rank."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which is validated and saved (0.999-0.9999); 0 is off."""
    average: int = 0
    """Average of the weights after each of the last so many epochs, which is validated and saved (5-10 for text), in
    place of `ema`; 0 is off."""
    beta2: float = 0.999
    """Decay of the second moments in adamw; 0.98 in the Transformer's paper."""
    drop_path: float | None = None
    """Drop path rate of the last block; default: the model's own."""

    layer_drop: float = 0.0
    """Probability that an update skips a whole block (LayerDrop, 0.2): any depth then works without further training;
    see `vitrail compress --depth`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute precision of the forward pass: auto takes bf16 if the hardware computes in it, else fp32. Weights,
    optimizer and loss stay in fp32."""
    seed: int = 0
    """Seed of all randomness of the run."""
    deterministic: bool = False
    """Allow only deterministic operations on a GPU. On a CPU all are."""
    compile: bool = False
    """Compile the model with torch.compile (needs a C++ compiler)."""
    checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the block again: less memory, a third more
    time, the same gradients. `vitrail cost --training` predicts both memories."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""
    threads: int = 0
    """CPU threads of each process; 0 keeps torch's choice. Bit-exact repeats need the same number."""
    workers: int | None = None
    """Data loading processes; the result does not depend on them. Default: none on a CPU, whose cores compute, or for
    images in memory; with a GPU the cores of this process, at most 8."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: a whole model in each process (ddp), or its shards (fsdp)."""

    folds: int = 0
    """Cross-validation: divide the training samples into so many folds, train once for each with the others, and
    summarise; 0 is off."""
    fold: int | None = None
    """Train for one of the folds, from 0, as a run of its own; default: for all of them."""

    out: str | None = None
    """Run folder; default: runs/TASK/DATA-MODEL, numbered if it is taken."""
    resume: str | None = None
    """Run folder to resume; or auto: resume `out` if it holds a run."""
    save_steps: int = 0
    """Save the training state every so many updates; 0 saves by time alone."""
    save_seconds: float = 60.0
    """Save the training state at least this often; 0 saves by updates alone."""
    track: Literal["none", "wandb", "mlflow", "trackio"] = "none"
    """Service that also receives losses and metrics; its package must be installed."""
    dry_run: bool = False
    """Check config and data, measure memory and speed, estimate the time, and write nothing."""

    def check(self) -> None:
        """Check the values, before anything is built."""
        if self.batch == -1:
            object.__setattr__(self, "batch", "auto")
        object.__setattr__(self, "set", tuple(self.set))
        targets = (name for text in self.lora_targets for name in text.split(","))
        object.__setattr__(self, "lora_targets", tuple(filter(None, targets)))
        check_ranges(self, _RANGES)
        check_choices(self, _CHOICES)
        _check_schedule(self)
        if self.ema and self.average:
            raise VitrailError("ema and average are two ways to average weights; choose one.")
        if self.optimizer != "adamw" and self.beta2 != 0.999:
            raise VitrailError(f"beta2 is a number of adamw, and the optimizer is {self.optimizer}. Leave it out.")
        if self.freeze not in ("none", "embedding", "backbone") and not self.freeze.isdigit():
            raise unknown(
                "freeze", self.freeze, ("none", "embedding", "backbone"), "Or the number of stages, such as 2."
            )
        if self.lora and (self.freeze != "none" or self.unfreeze):
            raise VitrailError("lora freezes all but its adapters and the head. Leave freeze and unfreeze out.")
        if not self.lora and (self.lora_targets or self.lora_alpha is not None):
            raise VitrailError("lora_targets and lora_alpha need a rank. Add lora=8.")
        if self.unfreeze and self.freeze == "none":
            raise VitrailError("unfreeze says when frozen layers learn, and none is frozen. Add freeze=backbone.")
        if self.folds == 1 or (self.fold is not None and self.fold >= self.folds):
            given = "" if self.fold is None else f" and fold {self.fold}"
            raise VitrailError(f"folds is {self.folds}{given}; use at least 2 folds, and a fold below their number.")
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise VitrailError("muon needs whole matrices, and fsdp shards them. Use parallel=ddp or optimizer=adamw.")
        self.model_overrides()
        super().check()

    def model_overrides(self) -> dict[str, Any]:
        """Return `set` as values for `create_model`."""
        return parse_overrides(self.set)

    def warmup_share(self) -> float:
        """Return the warm-up as a share of the run; `recipe.with_recipe` has filled in missing fields."""
        assert self.warmup is not None and self.epochs is not None
        return self.warmup / self.epochs if self.warmup >= 1 else self.warmup

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build the config of the task in `values` from plain values, such as a YAML file's; see `typed`."""
        kind = config_class(values.get("task", DEFAULT))
        return kind(**typed(kind, values))

    def __reduce__(self) -> tuple[object, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return RunConfig.from_dict, (values,)  # pickle cannot import the class of a task by name


@cache
def config_class(task: str) -> type[RunConfig]:
    """Return the config class of a task: the fields of every run and the options of the task.

    Raises:
        VitrailError: there is no such task.

    Example:
        >>> config_class("classify")(data="digits", mixup=0.2).mixup
        0.2
    """
    options = find_options(task).TrainOptions
    body: dict[str, Any] = {"__doc__": f"One training run of the task {task}.", "__module__": __name__}
    body |= {"__annotations__": {"task": str}, "task": task}
    body["SECTIONS"] = _join(RunConfig.SECTIONS, options.SECTIONS)
    return dataclass(frozen=True)(type("TrainConfig", (options, RunConfig), body))


def _join(*tables: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: tuple(field for table in tables for field in table.get(name, ())) for name in names}


def parse_overrides(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read `name=value` pairs: numbers, true/false, and tuples written with commas.

    Example:
        >>> parse_overrides(("depths=2,2", "drop_path=0.1", "edge=timm"))
        {'depths': (2, 2), 'drop_path': 0.1, 'edge': 'timm'}
    """
    return dict(_override(pair) for pair in pairs)


def _override(pair: str) -> tuple[str, Any]:
    name, sign, text = pair.partition("=")
    if not sign or not name:
        raise VitrailError(f"Cannot read --set {pair}. Write name=value, for example --set dim=48 depths=2,2.")
    if "," in text:
        return name, tuple(_scalar(part) for part in text.split(",") if part)
    return name, _scalar(text)


def _scalar(text: str) -> int | float | bool | str:
    words = {"true": True, "false": False}
    for read in (int, float, lambda word: words[word.lower()]):
        try:
            return read(text)
        except (ValueError, KeyError):
            continue
    return text


_RANGES = (
    Range("epochs", 1),
    Range("minutes", 0, open_low=True),
    Range("patience", 0),
    Range("eval_every", 1),
    Range("batch", 1, hint="Try 128, or batch=auto to have it found."),
    Range("grad_accum", 1),
    Range("lr", 0, open_low=True, hint="Try 1e-3, or lr=auto to have it found."),
    Range("min_lr", 0),
    Range("warmup", 0),
    Range("val_share", 0, 1, open_low=True),
    Range("weight_decay", 0),
    Range("clip_grad", 0),
    Range("layer_decay", 0, 1, open_low=True, open_high=False),
    Range("unfreeze", 0),
    Range("lora", 0),
    Range("lora_alpha", 0, open_low=True),
    Range("folds", 0),
    Range("fold", 0),
    Range("ema", 0, 1),
    Range("average", 0),
    Range("beta2", 0, 1, open_low=True),
    Range("drop_path", 0, 1),
    Range("layer_drop", 0, 1),
    Range("threads", 0),
    Range("workers", 0),
    Range("save_steps", 0),
    Range("save_seconds", 0),
    Range("seed", 0, 2**63),
)

_CHOICES: dict[str, tuple[str, ...]] = {
    "scheduler": ("cosine", "linear", "constant", "inverse_sqrt"),
    "optimizer": ("adamw", "muon", "sgd"),
    "bad": ("fail", "skip"),
    "precision": ("auto", "fp32", "bf16"),
    "parallel": ("ddp", "fsdp"),
    "track": ("none", "wandb", "mlflow", "trackio"),
}


def _check_schedule(config: RunConfig) -> None:
    if isinstance(config.lr, float | int) and config.min_lr > config.lr:
        raise VitrailError(
            f"min_lr is {config.min_lr}, above lr {config.lr}. The rate falls from lr to min_lr: swap them."
        )
    if config.warmup is None or config.warmup < 1:
        return
    if config.minutes is not None or (config.epochs is not None and config.warmup >= config.epochs):
        whole = f"{config.minutes} minutes" if config.minutes is not None else f"{config.epochs} epochs"
        raise VitrailError(
            f"warmup is {config.warmup:g} epochs in a run of {whole}. Give a share of the run, such as 0.05."
        )


TrainConfig: Any = config_class(DEFAULT)
"""Config of a run of the default task."""
