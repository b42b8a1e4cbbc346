"""Interfaces of a task, used by training, prediction, evaluation and the report.

A task is a package of `tasks/` (`options.py` without torch, `task.py` with `TASK`), found by its name. Nothing above
`tasks/` depends on a task in another way, so a new task needs no change there (docs/architecture.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor, nn

from vitrail.tasks.formatting import percent
from vitrail.tasks.table import Table


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
    """

    rank: int
    size: int
    device: torch.device
    seed: int
    workers: int
    bad: str


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


class Batch(Protocol):
    """Data of one optimizer step; the contents are private to the task."""

    @property
    def index(self) -> Tensor:
        """Sample numbers."""
        ...

    @property
    def weight(self) -> float:
        """Denominator of the mean loss: images, target tokens, labelled pixels; 0 if it is empty."""
        ...

    def to(self, device: torch.device) -> "Batch":
        """Move it to a device."""
        ...

    def split(self, count: int) -> Sequence[tuple[float, "Batch"]]:
        """Cut it into at most `count` micro-batches, none empty, each with its share of the weight."""
        ...

    def placeholder(self) -> "Batch":
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


class Splits(Protocol):
    """A data set by split; iteration yields the splits that exist."""

    name: str

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...

    def require(self, split: Any) -> Any:
        """Return a split, or raise `DataError` if it does not exist."""
        ...


class Loader(Protocol):
    """Batches of a data set."""

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        ...

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same in every epoch and on every rank."""
        ...

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Any]:
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
    """A task bound to its model and data: the subject of one training run."""

    model: nn.Module
    unit: str
    """Plural of what a weight counts, for throughput: `images`, `tokens`."""

    def describe(self) -> str:
        """Return the size of the training data in a few words, for the title of the run."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the model, and a teacher if there is one."""
        ...

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[Loader, Loader]:
        """Return the loaders of training and validation batches; both sizes are global."""
        ...

    def transform_batch(self, batch: Any, seed: int, step: int) -> Any:
        """Return the batch to train on (mixup, masking): a function of seed and step."""
        ...

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Return outputs; called inside DDP and FSDP, so tensors in tuples or dicts."""
        ...

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Return the loss in fp32, a mean over the batch's weight."""
        ...

    def metric(self, device: torch.device) -> Metric:
        """Return an empty accumulator for a validation."""
        ...

    def dummy_batch(self, size: int) -> Any:
        """Return a random batch on the CPU, for the batch-size search."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Return plain values for the model folder: class names, vocabulary."""
        ...

    def meta_model(self) -> nn.Module:
        """Return the same model on the meta device, with its `variant` and `config`."""
        ...


class Result(Protocol):
    """One prediction."""

    path: str
    error: str | None

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a CSV row, after path and error; see `Predictor.csv_columns`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        ...

    def draw(self) -> Image.Image:
        """Return an image of the prediction."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write its files (a mask, a restored image), and return them; often none."""
        ...


class Input(Protocol):
    """Input of a prediction, not read yet."""

    @property
    def name(self) -> str:
        """Its path, or its name in results."""
        ...


class Predictor(Protocol):
    """A model that computes predictions."""

    csv_columns: tuple[str, ...]
    """Names of the cells of `Result.cells`."""

    @property
    def gate(self) -> Event | None:
        """Event that pauses the loading threads while it is cleared, for timing."""
        ...

    def job(self) -> list[Any]:
        """Return plain values that determine the predictions, apart from the weights: options, vocabulary."""
        ...

    def load(self, item: Any) -> Any:
        """Read an input; called in threads. A `DataError` becomes a `failure`."""
        ...

    def predict(self, batch: list[Any]) -> Sequence[Any]:
        """Return a result for each of at least one `(input, loaded input)`."""
        ...

    def failure(self, item: Any, reason: str) -> Any:
        """Return the result of an input that cannot be read."""
        ...

    def table(self, results: Sequence[Any]) -> Table:
        """Return results as a table for people; all of them have no error."""
        ...


class MetricCard(NamedTuple):
    """A headline figure of the report: name, value, and a note."""

    label: str
    value: str
    note: str


class Section(NamedTuple):
    """A section of the report."""

    title: str
    body: Markup


class ImageExample(NamedTuple):
    """An image of an evaluation, for the report to explain.

    Args:
        image: the model's input as a `data:` address.
        alt: description of the image.
        caption: HTML below it.
    """

    image: str
    alt: str
    caption: Markup


class Evaluation(Protocol):
    """The result of an evaluation. `to_dict` holds its `task`, so that a file of it can be read."""

    model: str
    data: str
    parameters: int

    def metrics(self) -> dict[str, float]:
        """Return `loss` and the headline figures by name, for `summary.json` and the model card."""
        ...

    def summary(self) -> str:
        """Return a few sentences."""
        ...

    def tables(self, rows: int) -> list[Table]:
        """Return the tables that `vitrail evaluate` prints, with at most `rows` rows each."""
        ...

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        ...

    def sections(self) -> list[Section]:
        """Return the sections of the report."""
        ...

    def images_to_explain(self) -> list[ImageExample]:
        """Return images for the attention maps of the report; none if the inputs are no images."""
        ...

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation, for the last section of the report."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        ...


class DataCheck(Protocol):
    """Faults of a data set: unusable samples, and warnings."""

    @property
    def bad(self) -> Sequence[Any]:
        """Samples that cannot be used."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Warnings about the data."""
        ...


Notify = Callable[[Any], None]
"""Receives the implementation that a job runs on (`precision`, and `str` for a line about it), once it is chosen."""

Progress = Callable[[int, int], None]
"""Receives the number of samples done and of all samples, after each batch."""


class Task(Protocol):
    """A task of the library."""

    name: str
    """Name of its runs' folder, and `task` in `config.json`."""
    metrics: tuple[MetricSpec, ...]

    def open(self, spec: str, val_share: float, bad: Any) -> Any:
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
        self, model: Any, data: Any, options: Any, notify: Notify = ..., progress: Progress | None = None
    ) -> Evaluation:
        """Evaluate a model on an opened split."""
        ...

    def read_evaluation(self, values: dict[str, Any]) -> Evaluation:
        """Read the `to_dict` of an evaluation."""
        ...

    def collect(self, sources: Any) -> Sequence[Any]:
        """List inputs (files, folders, lines) without reading them."""
        ...

    def predictor(self, model: Any, options: Any, count: int | None, notify: Notify = ...) -> Predictor:
        """Return a predictor for a job of `count` inputs, None if their number is unknown."""
        ...
