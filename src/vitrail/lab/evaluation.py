"""What an evaluation found: one value, ready for a table, a JSON file or a report."""

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from vitrail.atomic_io import write_file
from vitrail.errors import DataError
from vitrail.lab.calibration import Calibration
from vitrail.lab.confidence_interval import Rate
from vitrail.lab.metrics import ClassFigures


@dataclass(frozen=True)
class Shown:
    """A picture of the split, kept to be looked at.

    Args:
        id: its name in the data set.
        label: the true class.
        predicted: the class that the model said.
        confidence: how sure it was of that.
        loss: negative log-likelihood of the true class, in nats.
        picture: the picture as the model saw it (after resize and crop), as a `data:` address.
    """

    id: str
    label: str
    predicted: str
    confidence: float
    loss: float
    picture: str

    def __post_init__(self) -> None:
        if not self.picture.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
            raise ValueError(f"{self.picture[:40]!r} is not a picture")  # a page would go and fetch it


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on one split.

    Args:
        model: its variant.
        parameters: number of its parameters.
        data: name of the data.
        samples: pictures that were evaluated, each once.
        labels: names of the model's classes.
        top1: share whose likeliest class is the true one, with its 95 % interval.
        top5: share with the true class among the five likeliest; None for five classes or fewer, where it says nothing.
        macro_f1: mean F1 over the classes that occur.
        classes: precision, recall and F1 of each class.
        confusion: `confusion[i][j]` pictures of class i were said to be of class j.
        calibration: how honest the confidences are.
        errors: the wrong answers with the highest loss, worst first.
        examples: right answers, one a class.
        seconds: time it took, with reading.
        images_per_second: pictures a second.
        batch: pictures that passed the model together.
        device: where the model was.
        precision: what it computed in.
        image_size: side of the pictures that it saw.
        form: `plain`, or `fast` where `vitrail.optimize`'s form answered.
        speedup: how many times as fast as the plain form the fast one was, on the first few pictures.
    """

    model: str
    parameters: int
    data: str
    samples: int
    labels: tuple[str, ...]
    top1: Rate
    top5: Rate | None
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    errors: tuple[Shown, ...]
    examples: tuple[Shown, ...]
    seconds: float
    images_per_second: float
    batch: int
    device: str
    precision: str
    image_size: int
    form: str = "plain"
    speedup: float | None = None

    def summary(self) -> dict[str, float]:
        """Return the headline figures by name, for a model card or `summary.json`."""
        figures = {"top1": self.top1.value or 0.0, "macro_f1": self.macro_f1}
        if self.top5 is not None:
            figures["top5"] = self.top5.value or 0.0
        return figures | {"nll": self.calibration.nll, "ece": self.calibration.ece, "brier": self.calibration.brier}

    @property
    def met(self) -> tuple[ClassFigures, ...]:
        """The classes that occur, in the truth or in the answers."""
        return tuple(each for each in self.classes if each.support or each.predicted)

    def most_confused(self, count: int = 10) -> list[tuple[str, str, int]]:
        """Return the commonest mistakes: true class, predicted class, how often."""
        pairs = [
            (self.labels[i], self.labels[j], n)
            for i, row in enumerate(self.confusion)
            for j, n in enumerate(row)
            if n and i != j
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, **_plain(asdict(self))}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as JSON, whole or not at all."""
        path = Path(path)
        write_file(path, json.dumps(self.to_dict(), allow_nan=False).encode())
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Evaluation":
        """Read what `save` wrote.

        Raises:
            DataError: the file is not an evaluation.
        """
        try:
            values = json.loads(Path(path).read_bytes())
            return cls.from_dict(values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is not an evaluation that `vitrail evaluate --out` wrote: {error!r}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Evaluation":
        """Read what `to_dict` gave."""
        values = {key: value for key, value in values.items() if key != "format_version"}
        values["top1"] = Rate(*values["top1"])
        values["top5"] = None if values["top5"] is None else Rate(*values["top5"])
        values["labels"] = tuple(values["labels"])
        values["classes"] = tuple(ClassFigures.from_dict(each) for each in values["classes"])
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        values["calibration"] = Calibration.from_dict(values["calibration"])
        values |= {key: tuple(Shown(**each) for each in values[key]) for key in ("errors", "examples")}
        return cls(**values)


def _plain(value: Any) -> Any:
    """Turn the tuples of a dataclass into the lists of JSON, so that `to_dict` equals what a file gives back."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
