"""The interfaces of results: predictions, and evaluations with their part of the report."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Protocol, runtime_checkable

from markupsafe import Markup
from PIL import Image

from vitrail.tasks.table import Table

Notify = Callable[[Any], None]
"""Receives the implementation that a job runs on (`precision`, and `str` for a line about it), once it is chosen."""

Progress = Callable[[int, int], None]
"""Receives the number of samples done and of all samples, after each batch."""


class Result(Protocol):
    """One prediction.

    A result that consists of images also has `images() -> dict[str, bytes]`: PNG files by name, for a server.
    """

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


def file_stem(path: str) -> str:
    """Return the name of the files of a prediction: that of the input without its ending; a frame keeps its number.

    Example:
        >>> file_stem("photos/cat.jpg"), file_stem("clip.mp4#12")
        ('cat', 'clip-12')
    """
    name, _, number = Path(path).name.rpartition("#")
    return f"{Path(name).stem}-{number}" if name and number.isdigit() else Path(path).stem


class Input(Protocol):
    """Something to predict, not read yet."""

    @property
    def name(self) -> str:
        """Its path, or its name in results."""
        ...


class Predictor(Protocol):
    """A model with the preprocessing and the outputs of its task.

    Attributes that only some have: `sequential` (true if it computes one input after the other, so a batch saves
    nothing), `max_pixels` (most pixels of an image that a server accepts), `on_part` (called during long work),
    `files_of_all` (files about all results of a job, from their `to_dict` and the folder that paths are relative to),
    `saved_name` (if `Result.save` writes files: from the path of an input the name that these begin with).
    """

    csv_columns: tuple[str, ...]
    """Names of the cells of `Result.cells`."""

    @property
    def gate(self) -> Event | None:
        """While it is cleared, no thread begins to read an input: something is being timed."""
        ...

    def job(self) -> list[object]:
        """Return all that predictions depend on besides the weights, as plain values: options, vocabulary."""
        ...

    def load(self, item: Any) -> Any:
        """Read an input; called in threads. A `DataError` becomes a `failure`."""
        ...

    def predict(self, batch: list[Any]) -> Iterable[Any]:
        """Return a result for each of at least one `(input, loaded input)`."""
        ...

    def failure(self, item: Any, reason: str) -> Any:
        """Return the result of an input that cannot be read."""
        ...

    def table(self, results: Sequence[Any]) -> Table:
        """Return results as a table for people; all of them have no error."""
        ...


@runtime_checkable
class Viewer(Protocol):
    """A predictor with more to draw than `Result.to_dict` holds: points of a cloud, alignment of a translation."""

    def view(self, result: Any) -> dict[str, Any]:
        """Return the overlays that a viewer draws for a result, as plain values; the result has no error."""
        ...


@runtime_checkable
class Streamer(Protocol):
    """A predictor that can give its result piece by piece."""

    def stream(self, loaded: Any) -> Iterator[dict[str, Any]]:
        """Yield plain values, ready for JSON, each with at least `text`; `loaded` is a loaded input."""
        ...


class MetricCard(NamedTuple):
    """A headline figure of the report: name, value, and a note."""

    label: str
    value: str
    note: str


class ReportSection(NamedTuple):
    """A section of the report.

    Args:
        title: its heading.
        body: its HTML, without scripts.
        script: constant JavaScript that runs at the end of the page; the only one that the page's policy allows.
    """

    title: str
    body: Markup
    script: str = ""


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

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report."""
        ...

    def images_to_explain(self) -> list[ImageExample]:
        """Return images whose attention the report shows; none if the inputs are no images."""
        ...

    def facts(self) -> dict[str, str]:
        """Return how it was measured, for the last section of the report."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        ...
