"""`vitrail embed`: vectors of images or texts, and their nearest neighbours."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vitrail.errors import DataError, VitrailError

EXAMPLES = """
vitrail embed runs/classify/flowers photos/ --out photos.npz
vitrail embed hf:facebook/dinov2-small@main photos/ --out photos.parquet --neighbours 8
vitrail embed models/minilm sentences.txt --out sentences.npz --neighbours 5
"""


@dataclass(frozen=True)
class Embed:
    """Write one vector for each image or text: the features that a model computes before its last layer.

    The file holds `names` and `vectors`. Vectors are written in shards during the job; an interrupted job continues
    when it is started again. Inputs whose names are in the file are not computed again, even if they changed. An input
    that cannot be read is left out, and the exit code is 3.
    """

    model: Positional[str]
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    inputs: Positional[tuple[str, ...]]
    """Files, folders, or patterns such as 'photos/*.jpg'; for models of text, files with a text per line, - reads
    standard input."""
    out: Path
    """File to write, .npz or .parquet."""
    codes: Path | None = None
    """File .npz of binary codes to write too: signs of the vectors around their mean, a 32nd of the bytes, for search
    by Hamming distance (`vitrail.compress.binary_codes.BinaryCodes.load`)."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    pool: Literal["auto", "mean", "first"] = "auto"
    """Vector of an input: auto takes the input of the head's last layer, else the mean; mean of the tokens; first
    (class) token."""
    batch: int = 32
    """Inputs in a batch; vectors do not depend on it."""
    neighbours: int = 0
    """Neighbours to show on an HTML page next to the file, for `queries` of the inputs; 0 writes none."""
    queries: int = 12
    """Inputs that the page shows with their neighbours."""

    def run(self) -> int:
        """Embed, write, and return the exit code."""
        from vitrail.cli.writers import kept_note
        from vitrail.inference.embed import vectors_of
        from vitrail.inference.embedding_file import EmbeddingFile, check_embedding_file
        from vitrail.inference.jsonl import job_of
        from vitrail.inference.model_loading import find_model
        from vitrail.tasks.features import feature_reader

        if self.neighbours < 0 or self.queries < 1:
            raise VitrailError("--neighbours is a number from 0 up, --queries one from 1 up.")
        check_embedding_file(self.out)
        if self.codes is not None and self.codes.suffix != ".npz":
            raise VitrailError(f"--codes {self.codes} does not name a format. Let it end in .npz.")
        reader = feature_reader(find_model(self.model, self.weights, self.device, headless=True), self.pool)
        inputs = reader.collect(reader.sources(self.inputs))
        file = EmbeddingFile(self.out, job_of(reader.model, reader))
        failed = self._work(vectors_of, reader, inputs, file)
        found = file.finish(item.name for item in inputs)
        kept = kept_note(sum(item.name in file.done for item in inputs), self.out)
        print(f"{self.out}: {len(found.names)} vectors of {found.vectors.shape[1]} numbers{kept}", file=sys.stderr)
        if reader.notes():
            print(reader.notes(), file=sys.stderr)
        self._write_codes(found)
        self._show(found, inputs)
        for one in failed[:5]:
            print(f"error: {one.name}: {one.error}", file=sys.stderr)
        if failed:
            print(f"{len(failed)} of {len(inputs)} inputs could not be read.", file=sys.stderr)
        return DataError.exit_code if failed else 0

    def _work(self, vectors_of: Any, reader: Any, inputs: Any, file: Any) -> list[Any]:
        """Embed the inputs without a vector, and return the failures."""
        from vitrail.cli.progress import progress_bar

        todo, failed = [item for item in inputs if item.name not in file.done], []
        try:
            with progress_bar("embed", len(todo)) as show:
                for count, one in enumerate(vectors_of(reader, todo, self.batch), start=1):
                    file.add(one)
                    show(count)
                    if one.error is not None:
                        failed.append(one)
        finally:
            file.flush()
        return failed

    def _write_codes(self, found: Any) -> None:
        if self.codes is None:
            return
        import torch

        from vitrail.atomic_io import make_folder
        from vitrail.compress.binary_codes import BinaryCodes

        codes = BinaryCodes.of(torch.from_numpy(found.vectors))
        make_folder(self.codes.parent)
        codes.save(self.codes, found.names)
        sizes = f"codes of {codes.nbytes:,} bytes for vectors of {found.vectors.nbytes:,} bytes"
        print(f"{self.codes}: {len(found.names)} {sizes}", file=sys.stderr)

    def _show(self, found: Any, inputs: Any) -> None:
        if not self.neighbours:
            return
        from shlex import join

        from vitrail.report.neighbour_page import write_neighbours

        path, items = self.out.with_suffix(".html"), {item.name: item for item in inputs}
        command = join(["vitrail", *sys.argv[1:]])
        print(f"page {write_neighbours(path, found, items, self.neighbours, self.queries, command)}", file=sys.stderr)
