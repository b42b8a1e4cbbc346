"""A task that lives in the tests alone: by how many degrees a digit was rotated.

It is unlike classification where a socket could have missed a difference: lower is better, batches differ in weight (an
image counts by its ink), the model has one output, and there are no classes, no tables and no optimized model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor, nn

from vitrail.data.datasets import open_dataset
from vitrail.data.image_io import open_image
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError, VitrailError
from vitrail.models import create_model, find
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_ranges
from vitrail.tasks.results import ImageExample, MetricCard, ReportSection
from vitrail.tasks.table import Table
from vitrail.tasks.task import MetricSpec, RunSpec, Share

SIDE = 16


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run."""

    SECTIONS: ClassVar[dict[str, tuple[str, ...]]] = {"rotation": ("spread",)}

    spread: float = 60.0
    """Largest rotation, in degrees."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("spread", 0, 180, open_low=True),))
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of a prediction."""

    digits: int = 1
    """Decimal places."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of an evaluation."""


class AngleBatch(NamedTuple):
    """Rotated images `(B, 1, Y, X)`, their angles in degrees `(B,)`, their ink `(B,)`, and sample numbers."""

    images: Tensor
    angles: Tensor
    ink: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        return float(self.ink.sum())

    def to(self, device: torch.device) -> Self:
        return type(self)(*(value.to(device) for value in self))

    def split(self, count: int) -> list[tuple[float, Self]]:
        parts = [type(self)(*part) for part in zip(*(value.tensor_split(count) for value in self), strict=True)]
        return [(part.weight / self.weight if self.weight else 1.0, part) for part in parts if len(part.index)]

    def placeholder(self) -> Self:
        zero = torch.zeros(1, device=self.angles.device)
        return type(self)(self.images.new_zeros(1, *self.images.shape[1:]), zero, zero, zero.long())


class Loader:
    """Digits, each rotated by an angle that is a function of seed, epoch and sample number."""

    def __init__(self, dataset: Any, order: ResumableSampler, spread: float, fixed: bool):
        self.dataset, self.order, self.spread, self.fixed = dataset, order, spread, fixed

    @property
    def steps(self) -> int:
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[AngleBatch]:
        for index in self.order.batches(epoch, start_step):
            draws = BatchRng(self.order.seed, 0 if self.fixed else epoch, index)
            angles = draws.uniform("angle", -self.spread, self.spread)
            images = [rotated(self.dataset, number, angle) for number, angle in zip(index, angles, strict=True)]
            pixels = torch.stack(images) if images else torch.zeros(0, 1, SIDE, SIDE)
            angles = torch.from_numpy(np.asarray(angles)).float()
            yield AngleBatch(pixels, angles, pixels.mean((1, 2, 3)), torch.from_numpy(index))


def rotated(dataset: Any, number: int, angle: float) -> Tensor:
    """Return a rotated digit, `(1, Y, X)` in 0..1."""
    image = dataset.image(int(number), "L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return to_tensor(image.rotate(float(angle), Image.Resampling.BILINEAR))


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32))[None] / 255


class MeanError:
    """Mean absolute error in degrees, and mean squared error in units of the spread, both weighted by ink."""

    def __init__(self, spread: float):
        self.spread, self.sums = spread, torch.zeros(3, dtype=torch.float64)

    def update(self, outputs: Tensor, batch: AngleBatch) -> None:
        error = (outputs.float() * self.spread - batch.angles).double()
        ink = batch.ink.double()
        self.sums += torch.stack([ink.sum(), (ink * (error / self.spread) ** 2).sum(), (ink * error.abs()).sum()])

    def sync(self, all_reduce_sum: Any) -> None:
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        ink, squared, absolute = self.sums.tolist()
        return {"loss": squared / ink, "degrees": absolute / ink}


class AngleTraining:
    """A regressor of angles bound to digits."""

    unit = "digits"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: Any):
        self.options, self.splits = options, splits
        torch.manual_seed(run.seed)
        fixed = {"num_classes": 1, "in_channels": 1, "image_size": SIDE}
        self.model: Any = create_model(run.variant, weights=run.weights, **{**run.overrides, **fixed})
        self.model.task, self.model.metadata = "angle", self.metadata()

    def describe(self) -> str:
        return f"{len(self.splits.require('train')):,} digits"

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[Loader, Loader]:
        ranks = {"rank": share.rank, "world": share.size}
        train, val = self.splits.require("train"), self.splits.require("val")
        order = ResumableSampler(len(train), batch, share.seed, **ranks)
        still = ResumableSampler(len(val), eval_batch, shuffle=False, drop_last=False, **ranks)
        return Loader(train, order, self.options.spread, False), Loader(val, still, self.options.spread, True)

    def transform_batch(self, batch: AngleBatch, seed: int, step: int) -> AngleBatch:
        return batch

    def forward(self, model: nn.Module, batch: AngleBatch) -> Tensor:
        return model(batch.images)[:, 0]

    def loss(self, outputs: Tensor, batch: AngleBatch) -> Tensor:
        squared = (outputs.float() - batch.angles / self.options.spread) ** 2
        return (batch.ink * squared).sum() / batch.ink.sum().clamp(min=1e-9)

    def metric(self, device: torch.device) -> MeanError:
        return MeanError(self.options.spread)

    def dummy_batch(self, size: int) -> AngleBatch:
        return AngleBatch(torch.rand(size, 1, SIDE, SIDE), torch.rand(size), torch.rand(size), torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        return {"spread": self.options.spread}

    def meta_model(self) -> nn.Module:
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config, shell.task = self.model.variant, self.model.config, "angle"
        return shell


@dataclass(frozen=True)
class AngleResult:
    """The angle of a digit, or the reason why there is none."""

    path: str
    angle: float = 0.0
    error: str | None = None

    def cells(self) -> tuple[str, ...]:
        return () if self.error else (f"{self.angle:.3f}",)

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "error": self.error} if self.error else {"path": self.path, "angle": self.angle}

    def draw(self) -> Image.Image:
        return open_image(self.path, "L").rotate(-self.angle)

    def save(self, folder: Path) -> list[Path]:
        return []

    def __str__(self) -> str:
        return f"{self.path}: {self.error or f'{self.angle:.1f}°'}"


class File(NamedTuple):
    """A file that has not been read yet."""

    name: str


class AnglePredictor:
    """A model that predicts the rotation of digits."""

    csv_columns = ("angle",)
    gate = None

    def __init__(self, model: Any, options: PredictOptions):
        self.model, self.options = model, options

    def job(self) -> list[Any]:
        return [self.options.digits]

    def load(self, item: File) -> Tensor:
        return to_tensor(open_image(item.name, "L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    @torch.inference_mode()
    def predict(self, batch: list[tuple[File, Tensor]]) -> list[AngleResult]:
        outputs = self.model(torch.stack([image for _, image in batch]))[:, 0] * self.model.metadata["spread"]
        found = zip(batch, outputs.tolist(), strict=True)
        return [AngleResult(item.name, round(angle, self.options.digits)) for (item, _), angle in found]

    def failure(self, item: File, reason: str) -> AngleResult:
        return AngleResult(item.name, error=reason)

    def table(self, results: Sequence[AngleResult]) -> Table:
        return Table("Angles", ("digit", "angle"), [[r.path, f"{r.angle:.1f}°"] for r in results], right=("angle",))


@dataclass(frozen=True)
class AngleEvaluation:
    """Errors of a model."""

    model: str
    data: str
    parameters: int
    samples: int
    loss: float
    degrees: float

    def metrics(self) -> dict[str, float]:
        return {"loss": self.loss, "degrees": self.degrees}

    def summary(self) -> str:
        return f"The angles of {self.samples} digits are off by {self.degrees:.1f}° in the mean."

    def tables(self, rows: int) -> list[Table]:
        return [Table("Errors", ("measure", "value"), [["mean error", f"{self.degrees:.2f}°"]])]

    def cards(self) -> list[MetricCard]:
        return [MetricCard("Mean error", f"{self.degrees:.1f}°", f"{self.samples} digits")]

    def sections(self) -> list[ReportSection]:
        return [ReportSection("Errors", Markup("<p>Off by {}°.</p>").format(round(self.degrees, 1)))]

    def images_to_explain(self) -> list[ImageExample]:
        return []

    def facts(self) -> dict[str, str]:
        return {"data": self.data}

    def to_dict(self) -> dict[str, Any]:
        return {"task": "angle", **asdict(self)}


class Nothing(NamedTuple):
    """A check without findings."""

    bad: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


class Angle:
    """The task."""

    name = "angle"
    reads = "image"
    metrics = (MetricSpec("degrees", "Mean error", higher_is_better=False, unit="°"),)

    def open(self, spec: str, val_share: float, bad: Any) -> Any:
        if spec != "digits":
            raise VitrailError(f"The data is {spec}; angles are learned from digits.")
        return open_dataset(spec, val_share=val_share)

    def open_split(self, spec: str, split: str) -> Any:
        return open_dataset(spec).require(split)  # pyright: ignore[reportArgumentType]

    def check(self, spec: str, val_share: float) -> Nothing:
        return Nothing()

    def bind(self, options: Any, run: RunSpec, splits: Any) -> AngleTraining:
        return AngleTraining(options, run, splits)

    def evaluate(
        self, model: Any, data: Any, options: Any, notify: Any = None, progress: Any = None
    ) -> AngleEvaluation:
        metric = MeanError(model.metadata["spread"])
        order = ResumableSampler(len(data), options.batch, shuffle=False, drop_last=False)
        with torch.inference_mode():
            for batch in Loader(data, order, model.metadata["spread"], fixed=True).epoch():
                metric.update(model(batch.images)[:, 0], batch)
        count = sum(value.numel() for value in model.parameters())
        return AngleEvaluation(model.variant, data.name, count, len(data), **metric.compute())

    def read_evaluation(self, values: dict[str, Any]) -> AngleEvaluation:
        return AngleEvaluation(**{key: value for key, value in values.items() if key != "task"})

    def collect(self, sources: Any) -> list[File]:
        found = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
        files = [File(str(path)) for each in found for path in (sorted(each.iterdir()) if each.is_dir() else [each])]
        if not files:
            raise DataError("There are no digits.")
        return files

    def predictor(self, model: Any, options: Any, count: int | None, notify: Any = None) -> AnglePredictor:
        return AnglePredictor(model, options)


TASK = Angle()
