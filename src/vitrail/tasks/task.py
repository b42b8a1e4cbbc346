"""Interfaces of a task, used by training, prediction, evaluation and the report.

A task is a package of `tasks/` (`options.py` without torch, `task.py` with `TASK`), found by its name. Nothing above
`tasks/` depends on a task in another way, so a new task needs no change there (docs/architecture.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vitrail.parts.model import Model
from vitrail.tasks.formatting import percent
from vitrail.tasks.options import Bad
from vitrail.tasks.results import Evaluation, Input, Notify, Predictor, Progress


class MetricSpec(NamedTuple):
    """A metric of a validation. The first of a task selects the best checkpoint; ties are broken by the loss.

    Args:
        name: column of `results.csv` and key of `summary.json`, such as `top1`, `psnr`, `bleu`.
        title: name for people, such as `Top-1`.
        higher_is_better: direction.
        unit: `%` for a share of one, else `dB`, `nats`, `°`, or nothing.
        note: sentence below its chart.
    """

    name: str
    title: str
    higher_is_better: bool = True
    unit: str = "%"
    note: str = ""

    def format(self, value: float | None) -> str:
        """Format a value of the metric.

        Example:
            >>> MetricSpec("top1", "Top-1").format(0.975), MetricSpec("psnr", "PSNR", unit="dB").format(32.456)
            ('97.5%', '32.46 dB')
        """
        if value is None:
            return "–"
        if self.unit == "%":
            return percent(value)
        return f"{value:.2f}{' ' * (len(self.unit) > 1)}{self.unit}"


class Share(NamedTuple):
    """The part of a run's data that one process loads, and how.

    Args:
        rank: number of this process.
        size: number of processes.
        device: device of the batches.
        seed: seed of the order and of the augmentation.
        workers: number of loading processes.
        bad: treatment of unreadable samples: `fail` or `skip`.
        precision: compute precision of a forward pass, `fp32` or `bf16`.
    """

    rank: int
    size: int
    device: torch.device
    seed: int
    workers: int
    bad: str
    precision: str = "fp32"


class RunSpec(NamedTuple):
    """Data and model of a run.

    Args:
        data: name, file or folder of the data set, as `Task.open` got it.
        variant: name in the catalogue.
        weights: checkpoint to start from, or None.
        overrides: fields of the model's config to replace.
        seed: seed of random weights; the same in every process.
    """

    data: str
    variant: str
    weights: str | None
    overrides: Mapping[str, Any]
    seed: int


class TaskBatch(Protocol):
    """Data of one optimizer step; only its task knows the contents."""

    @property
    def index(self) -> Tensor:
        """Sample numbers."""
        ...

    @property
    def weight(self) -> float:
        """Denominator of the mean loss: images, target tokens, labelled pixels; 0 if it is empty."""
        ...

    def to(self, device: torch.device) -> "TaskBatch":
        """Move it to a device."""
        ...

    def split(self, count: int) -> Sequence[tuple[float, "TaskBatch"]]:
        """Cut it into at most `count` micro-batches, none empty, each with its share of the weight."""
        ...

    def placeholder(self) -> "TaskBatch":
        """Return one sample, for the forward pass of a rank without data; it replaces an empty batch."""
        ...


class Dataset(Protocol):
    """Samples with stable names."""

    name: str

    @property
    def ids(self) -> Sequence[str]:
        """Name of each sample."""
        ...

    def __len__(self) -> int: ...


class DataSplits(Protocol):
    """A data set by split; iteration yields the splits that exist."""

    name: str

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...

    def require(self, split: Any) -> Any:
        """Return a split, or raise `DataError` if it does not exist."""
        ...


class BatchLoader(Protocol):
    """Batches of a data set.

    A loader of features that are computed once also has `sample_seconds`, the time of a sample in the whole model, and
    `rehearse()`, which a dry run calls: it tries the model on few samples and returns the seconds for all of them. A
    loader that may leave samples out has `skipped`, their reasons by name.
    """

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        ...

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same in every epoch and on every rank."""
        ...

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[TaskBatch]:
        """Yield the batches of this rank from `start_step` on: a function of seed, epoch and step."""
        ...


class Metric(Protocol):
    """Accumulator of a validation."""

    def update(self, outputs: Any, batch: Any) -> None:
        """Add a batch that is not empty."""
        ...

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        ...

    def compute(self) -> dict[str, float]:
        """Return `loss` and the metrics of the task, by name."""
        ...


class TrainingTask(Protocol):
    """A task bound to its model and data: the subject of one training run.

    A module `companions`, if there is one, is trained and saved with the run and is no part of the model: `forward`
    uses its parameters in training.
    """

    model: Model
    unit: str
    """Plural of what a weight counts, for throughput: `images`, `tokens`."""

    def describe(self) -> str:
        """Return the size of the training data in a few words, for the title of the run."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the model, and a teacher if there is one."""
        ...

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[BatchLoader, BatchLoader]:
        """Return the loaders of training and validation batches; both sizes are global."""
        ...

    def transform_batch(self, batch: Any, seed: int, step: int) -> TaskBatch:
        """Return the batch to train on (mixup, masking): a function of seed and step."""
        ...

    def forward(self, model: Model, batch: Any) -> Any:
        """Return outputs; called inside DDP and FSDP, so tensors in tuples or dicts."""
        ...

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Return the loss in fp32, a mean over the batch's weight."""
        ...

    def metric(self, device: torch.device) -> Metric:
        """Return an empty accumulator for a validation."""
        ...

    def dummy_batch(self, size: int) -> TaskBatch:
        """Return a random batch on the CPU, for the batch-size search."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Return plain values for the model folder: class names, vocabulary."""
        ...

    def meta_model(self) -> Model:
        """Return the same model on the meta device, with its `variant` and `config`."""
        ...


class DataCheck(Protocol):
    """Faults of a data set: unusable samples, and warnings."""

    @property
    def bad(self) -> Sequence[object]:
        """Samples that cannot be used."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Warnings about the data."""
        ...

    def lines(self) -> Sequence[str]:
        """Return counts and other findings as lines of text."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        ...


class Task(Protocol):
    """A task of the library.

    A task whose models can be exported also has `program(model) -> ProgramSpec` (`tasks/program.py`), and another
    `no_program`: why there is none, and what to do.
    """

    name: str
    """Name of its runs' folder, and `task` in `config.json`."""
    reads: str
    """Kind of its inputs: `image`, `text` or `points`."""
    metrics: tuple[MetricSpec, ...]

    def open(self, spec: str, val_share: float, bad: Bad) -> Any:
        """Open a data set with at least a train and a val split."""
        ...

    def open_split(self, spec: str, split: str) -> Any:
        """Open one split of a data set to be evaluated on; `all` is a data set without splits."""
        ...

    def check(self, spec: str, val_share: float) -> DataCheck:
        """Check a data set for faults."""
        ...

    def bind(self, options: Any, run: RunSpec, splits: Any) -> TrainingTask:
        """Build the model of a run, bound to its data."""
        ...

    def evaluate(
        self, model: Model, data: Any, options: Any, notify: Notify = ..., progress: Progress | None = None
    ) -> Evaluation:
        """Evaluate a model on an opened split."""
        ...

    def read_evaluation(self, values: dict[str, Any]) -> Evaluation:
        """Read the `to_dict` of an evaluation."""
        ...

    def collect(self, sources: object) -> Sequence[Input]:
        """List inputs (files, folders, lines) without reading them."""
        ...

    def predictor(self, model: Model, options: Any, count: int | None, notify: Notify = ...) -> Predictor:
        """Return a predictor for a job of `count` inputs, None if their number is unknown."""
        ...
