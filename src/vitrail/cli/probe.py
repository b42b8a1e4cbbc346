"""`vitrail probe`: linear probe and k-NN on the features of frozen models."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail probe runs/classify/flowers flowers/
vitrail probe hf:facebook/dinov2-small@main models/swin_tiny flowers/   # several models in one table
vitrail probe models/minilm data/sst2 --json
"""


@dataclass(frozen=True)
class Probe:
    """Measure how well classes can be read off frozen features: by a linear probe, and by k-NN.

    The linear probe is logistic regression, its penalty chosen by cross-validation on the training samples; k-NN
    weights 20 neighbours by their cosine. Both are measured on the test split, or else on val. The features are cached
    by weights and data, so a second call takes seconds.
    """

    words: Positional[tuple[str, ...]]
    """One or more models (folders, run folders, hub ids), then the data: a data set with one class for each sample; a
    table of several labels for an image is not probed."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue; for one model."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    pool: Literal["auto", "mean", "first"] = "auto"
    """Vector of a sample, as in `vitrail embed`."""
    k: int = 20
    """Neighbours of k-NN."""
    batch: int = 64
    """Samples in a batch."""
    bad: Literal["fail", "skip"] = "fail"
    """Treatment of unreadable samples: stop at the first, or leave them out."""
    image_column: str | None = None
    """Column of a table that holds the path of the image; common names are found by default."""
    label_column: str | None = None
    """Column of a table that holds the class."""
    split_column: str | None = None
    """Column of a table that holds train, val or test."""
    out: Path | None = None
    """JSON file to write the figures to."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Measure every model, print, and return the exit code."""
        import json

        from vitrail.atomic_io import check_writable, write_file
        from vitrail.cli.progress import progress_bar
        from vitrail.data.table import Columns
        from vitrail.inference.model_loading import find_model
        from vitrail.tasks.classes.probe import probe, probe_table
        from vitrail.tasks.features import feature_reader
        from vitrail.tasks.skipped import skip_hint, skipped_sentence

        *models, data = self.words
        if not models:
            raise VitrailError(f"Got only '{data}'; a model and data are needed: vitrail probe MODEL DATA")
        if self.k < 1 or self.batch < 1:
            raise VitrailError("--k and --batch are numbers from 1 up.")
        if self.weights is not None and len(models) > 1:
            raise VitrailError("--weights is for one model. Convert each checkpoint to a folder: vitrail convert")
        if self.out is not None:
            check_writable(self.out)
        columns, results = Columns(self.image_column, self.label_column, self.split_column), []
        for name in models:
            reader = feature_reader(find_model(name, self.weights, self.device, headless=True), self.pool)
            with progress_bar(f"probe {name}", 1) as show, skip_hint(self.bad):
                every = self.k, self.batch, lambda done, all_: show(done / all_), self.bad, columns
                results.append(probe(reader, data, *every))
        text = json.dumps([one.to_dict() for one in results], indent=1) + "\n"
        if self.out is not None:
            write_file(self.out, text.encode())
        if self.json:
            print(text, end="")
            return 0
        table = probe_table(results)
        print_table(table.columns, table.rows, right=table.right)
        first = results[0]
        left_out = skipped_sentence(first.skipped, first.skipped_names, "sample")
        print(f"{first.samples} samples ({first.data})" + (left_out and f".{left_out}"), file=sys.stderr)
        return 0
