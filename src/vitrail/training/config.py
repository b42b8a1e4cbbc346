"""Everything that a training run can be told, in one frozen value.

This file imports no torch: the command line shows its help from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vitrail.errors import VitrailError, unknown
from vitrail.training.config_io import typed

RUNTIME = ("out", "resume", "dry_run", "workers", "device", "parallel", "save_steps", "save_seconds")
"""Fields that say how a run is carried out, not what it computes: a resumed run may be given others."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Names are the field's own; `batch` is **global**: all processes and all accumulation steps together make one batch.

    Example:
        >>> TrainConfig(data="digits", epochs=50, warmup=5).warmup_share()
        0.1
        >>> TrainConfig(data="digits", lr=-1.0)
        Traceback (most recent call last):
        ...
        vitrail.errors.VitrailError: lr is -1.0; it must be above 0. Try 1e-3, or lr=auto to have it found.
    """

    data: str = ""
    """What to learn from: a folder of class folders, a CSV or JSONL file, or the name of a known data set (digits)."""
    model: str = "swin_tiny_patch4_window7_224"
    """Name of the model; see them with: vitrail models."""
    weights: str | None = None
    """Weights to start from: a file, a model folder or a hub id. Random when not given."""
    val_share: float = 0.1
    """Share of the training pictures to validate on, where the data has no validation split of its own."""
    bad: Literal["fail", "skip"] = "fail"
    """What to do about pictures that cannot be read: stop and name them, or leave them out and count them."""
    set: tuple[str, ...] = ()
    """Fields of the model's config to replace, as name=value: --set dim=48 depths=2,2 num_heads=3,6."""

    epochs: int = 100
    """Passes over the training data."""
    minutes: float | None = None
    """Train for this long instead of `epochs`; the schedule follows the clock, so resuming is not bit for bit."""
    patience: int = 0
    """Stop after this many validations without a better top-1; 0 never stops early."""
    eval_every: int = 1
    """Validate after every so many epochs; the last one always counts."""

    batch: int | Literal["auto"] | None = None
    """Pictures in one update, over all processes; by default 128, of less than 1,024 pictures fewer. auto (or -1)
    takes the most that the memory holds while an epoch keeps 32 updates, and no less than the default."""
    grad_accum: int = 1
    """Parts that each batch is cut into to save memory; the result does not depend on it."""
    imgsz: int | None = None
    """Side of the training and validation pictures in pixels; by default the model's own."""

    lr: float | Literal["auto"] = 1e-3
    """Highest learning rate. auto runs the learning-rate finder first."""
    min_lr: float = 1e-6
    """Learning rate at the end."""
    warmup: float = 0.05
    """How long the rate climbs from zero: below 1 a share of the run, from 1 on a number of epochs."""
    scheduler: str = "cosine"
    """How the rate falls after the warm-up: cosine, linear or constant."""
    optimizer: str = "adamw"
    """adamw or sgd (with momentum 0.9)."""
    weight_decay: float = 0.05
    """Pull of matrices towards zero; biases, norms, tokens and tables are left alone."""
    clip_grad: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    layer_decay: float = 1.0
    """Factor on the rate for each block further from the head (0.65-0.9 when fine-tuning); 1 is one rate for all."""
    freeze: str = "none"
    """What stays as it is: none, embedding, a number n (embedding and the first n stages), or backbone."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which is then validated and saved (0.999-0.9999); 0 is off."""

    smoothing: float = 0.1
    """Label smoothing, in [0, 1)."""
    drop_path: float | None = None
    """Probability of dropping a branch in the last block; by default the model's own."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off. With both on, each batch takes one of them."""
    augment: Literal["auto", "none", "digits", "small", "small-strong", "photo", "photo-strong"] = "auto"
    """What training may do to a picture; auto takes digits, small (pictures up to 96 pixels) or photo by the data."""
    randaugment: int | None = None
    """Magnitude of RandAugment, 0 (off) to 30; by default as `augment` has it."""
    erasing: float | None = None
    """Probability of erasing a box; by default as `augment` has it."""
    flip: float | None = None
    """Probability of mirroring a picture; by default as `augment` has it. 0 where left and right differ."""
    crop_min: float | None = None
    """Least share of the picture that a random crop keeps; by default as `augment` has it."""

    teacher: str | None = None
    """Model folder (or variant with its weights in a folder) of a teacher to distil from (DeiT)."""
    distill: Literal["hard", "soft"] = "hard"
    """Learn the teacher's decision (hard) or its softened distribution (soft)."""
    distill_alpha: float = 0.5
    """Share of the loss that comes from the teacher."""
    distill_temperature: float = 3.0
    """Temperature of soft distillation."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass: auto takes bf16 where the hardware computes in it, else fp32. Weights, optimizer
    and loss stay in fp32."""
    seed: int = 0
    """The one number that all randomness of the run comes from."""
    deterministic: bool = False
    """On a GPU, allow only operations that repeat bit for bit. On a CPU they always do."""
    compile: bool = False
    """Compile the model with torch.compile (needs a C++ compiler)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    threads: int = 0
    """CPU threads of each process; 0 leaves torch's choice. Bit-exact repeats need the same number."""
    workers: int = 0
    """Processes that read and transform pictures; the result does not depend on it."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: a whole model in each process (ddp), or its shards (fsdp)."""

    out: str | None = None
    """Run folder; by default runs/classify/<data>-<model>, numbered when taken."""
    resume: str | None = None
    """Run folder to go on with; or auto: go on in `out` where there is something to go on from."""
    save_steps: int = 0
    """Save the training state every so many updates; 0 goes by time alone."""
    save_seconds: float = 60.0
    """Save the training state at least this often; 0 goes by updates alone."""
    dry_run: bool = False
    """Check config and data, measure memory and speed, tell how long it will take, and leave nothing behind."""

    def __post_init__(self) -> None:
        if self.batch == -1:
            object.__setattr__(self, "batch", "auto")
        object.__setattr__(self, "set", tuple(self.set))
        _check(self)

    def model_overrides(self) -> dict[str, Any]:
        """Return `set` as values for `create_model`."""
        return dict(_override(pair) for pair in self.set)

    def warmup_share(self) -> float:
        """Return the warm-up as a share of the run."""
        return self.warmup / self.epochs if self.warmup >= 1 else self.warmup

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Build a config from plain values, such as a YAML file's; see `typed` for what it refuses."""
        return cls(**typed(cls, values))


def _override(pair: str) -> tuple[str, Any]:
    """Read `name=value`: numbers, true/false, and tuples written with commas.

    Example:
        >>> _override("depths=2,2"), _override("drop_path=0.1"), _override("edge=timm")
        (('depths', (2, 2)), ('drop_path', 0.1), ('edge', 'timm'))
    """
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


# field, (low, low itself allowed), (high, high itself allowed), hint
_RANGES: tuple[tuple[str, float, bool, float, bool, str], ...] = (
    ("epochs", 1, True, float("inf"), False, ""),
    ("minutes", 0, False, float("inf"), False, ""),
    ("patience", 0, True, float("inf"), False, ""),
    ("eval_every", 1, True, float("inf"), False, ""),
    ("batch", 1, True, float("inf"), False, "Try 128, or batch=auto to have it found."),
    ("grad_accum", 1, True, float("inf"), False, ""),
    ("imgsz", 1, True, float("inf"), False, ""),
    ("lr", 0, False, float("inf"), False, "Try 1e-3, or lr=auto to have it found."),
    ("min_lr", 0, True, float("inf"), False, ""),
    ("warmup", 0, True, float("inf"), False, ""),
    ("val_share", 0, False, 1, False, ""),
    ("weight_decay", 0, True, float("inf"), False, ""),
    ("clip_grad", 0, True, float("inf"), False, ""),
    ("layer_decay", 0, False, 1, True, ""),
    ("ema", 0, True, 1, False, ""),
    ("smoothing", 0, True, 1, False, ""),
    ("drop_path", 0, True, 1, False, ""),
    ("mixup", 0, True, float("inf"), False, ""),
    ("cutmix", 0, True, float("inf"), False, ""),
    ("randaugment", 0, True, 30, True, ""),
    ("erasing", 0, True, 1, True, ""),
    ("flip", 0, True, 1, True, ""),
    ("crop_min", 0, False, 1, True, ""),
    ("distill_alpha", 0, True, 1, True, ""),
    ("distill_temperature", 0, False, float("inf"), False, ""),
    ("threads", 0, True, float("inf"), False, ""),
    ("workers", 0, True, float("inf"), False, ""),
    ("save_steps", 0, True, float("inf"), False, ""),
    ("save_seconds", 0, True, float("inf"), False, ""),
    ("seed", 0, True, 2**63, False, ""),
)

_CHOICES: dict[str, tuple[str, ...]] = {
    "scheduler": ("cosine", "linear", "constant"),
    "optimizer": ("adamw", "sgd"),
    "augment": ("auto", "none", "digits", "small", "small-strong", "photo", "photo-strong"),
    "bad": ("fail", "skip"),
    "distill": ("hard", "soft"),
    "precision": ("auto", "fp32", "bf16"),
    "parallel": ("ddp", "fsdp"),
}


def _check(config: TrainConfig) -> None:
    """Refuse numbers that cannot work, before anything is built."""
    for name, low, with_low, high, with_high, hint in _RANGES:
        value = getattr(config, name)
        if value is None or (value == "auto" and name in ("batch", "lr")):
            continue
        if isinstance(value, str | bool) or not isinstance(value, int | float):
            raise VitrailError(f"{name} is {value!r}; a number is needed. {hint}".rstrip())
        inside = (value >= low if with_low else value > low) and (value <= high if with_high else value < high)
        if not inside:
            raise VitrailError(
                f"{name} is {value}; it must be {_span(low, with_low, high, with_high)}. {hint}".rstrip()
            )
    for name, valid in _CHOICES.items():
        if getattr(config, name) not in valid:
            raise unknown(name, str(getattr(config, name)), valid)
    if isinstance(config.lr, float | int) and config.min_lr > config.lr:
        raise VitrailError(
            f"min_lr is {config.min_lr}, above lr {config.lr}. The rate falls from lr to min_lr: swap them."
        )
    if config.warmup >= 1 and (config.minutes is not None or config.warmup >= config.epochs):
        whole = f"{config.minutes} minutes" if config.minutes is not None else f"{config.epochs} epochs"
        raise VitrailError(
            f"warmup is {config.warmup:g} epochs in a run of {whole}. Give a share of the run, such as 0.05."
        )
    if config.freeze not in ("none", "embedding", "backbone") and not config.freeze.isdigit():
        raise unknown("freeze", config.freeze, ("none", "embedding", "backbone"), "Or the number of stages, such as 2.")
    config.model_overrides()


def _span(low: float, with_low: bool, high: float, with_high: bool) -> str:
    """Say a range in words."""
    floor = f"at least {low}" if with_low else f"above {low}"
    if high == float("inf"):
        return floor
    return f"{floor} and {'at most' if with_high else 'below'} {high}"
