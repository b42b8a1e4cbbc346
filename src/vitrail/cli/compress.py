"""`vitrail compress`: remove heads, channels, blocks, ranks, tokens and bits from a model, and measure the change."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vitrail.cli.table import print_table
from vitrail.compress.settings import CompressSettings
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail compress runs/classify/flowers --heads 0.5 --mlp 0.25 --data flowers/ --out models/small
vitrail compress runs/classify/flowers --width 0.75 --data flowers/ --out models/small      # all layers narrower
vitrail compress runs/classify/flowers --depth 9 --rank-energy 0.95 --data flowers/ --measure --out models/small
vitrail compress vit_tiny_patch16_224 --weights vit_tiny.pt --mlp 0.25 --out models/small     # by weights alone
vitrail compress runs/classify/flowers --weights-bits 4 --data flowers/ --out models/small      # a sixth of the bytes
vitrail compress runs/classify/flowers --weights-bits mixed --data flowers/ --sensitivity page.html --out models/small
vitrail compress runs/classify/flowers --target 1.5x --max-loss 1 --data flowers/ --out models/small
"""


@dataclass(frozen=True)
class Compress(CompressSettings):
    """Remove channels, attention heads, hidden channels of MLPs, blocks, ranks and bits of linear layers, and tokens.

    Scores on data, or the weights alone, select the removed parts. The result is a model folder like any other: it is
    loaded, trained on (`vitrail train --weights FOLDER`), optimized and exported; its config states the edits. A table
    compares it with the model: weights, multiply-adds and bytes, with --data the figures of an evaluation, with
    --measure the latency of both.

    With --target, --size or --latency, no shares are given: edits are added one by one, each time the one that changes
    the outputs least for its saving, until the aim is reached or the loss is above --max-loss.
    """

    model: Positional[str] = ""
    """A model folder, a run folder, a name in the catalogue (with --weights), or hf:org/name@revision."""
    out: Path | None = None
    """Model folder to write."""
    data: str | None = None
    """Data set of the model's task: its training split gives the scores, its test or val split the figures. A folder of
    images without labels gives scores alone."""
    split: str = "auto"
    """Split of the figures; auto takes test, else val, else all."""
    samples: int = 64
    """Training samples for the scores."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "cpu"
    """Device of the scores and figures."""
    sensitivity: Path | None = None
    """HTML page to write: growth of the loss on --data if one layer at a time is quantized. It may be given alone."""
    measure: bool = False
    """Measure the latency of the model and its compressed form in turns, both optimized if they can be."""
    batch: int = 1
    """Inputs of a call whose latency is measured."""
    target: str | None = None
    """Speedup to reach, such as 2x: measured, not computed from multiply-adds."""
    size: str | None = None
    """Bytes of the tensors to reach, such as 5MB."""
    latency: str | None = None
    """Time of a call to reach, such as 10ms."""
    max_loss: float = 1.0
    """With an aim: most that the first figure of the task may lose, in points or in its unit."""

    def run(self) -> int:
        """Compress, measure, print and write."""
        from vitrail.compress.calibration_data import open_probes
        from vitrail.compress.compress import compress
        from vitrail.weights.folder import check_replaceable, save_model

        if self.sensitivity is not None and self.out is None and self.empty:
            self._write_sensitivity(self._model(), {})
            return 0
        if not self.model or self.out is None:
            raise VitrailError("Give a model and where to write: vitrail compress MODEL --mlp 0.25 --out FOLDER")
        aims = [name for name in ("target", "size", "latency") if getattr(self, name) is not None]
        if self.empty and not aims:
            raise VitrailError(
                "Nothing is to be removed. Say what: --width 0.75, --heads 0.5, --mlp 0.25, --depth 9,\n"
                "--rank-energy 0.95, --weights-bits 8, --tokens-merge 8,\n"
                "or an aim: --target 2x, --size 5MB, --latency 10ms."
            )
        check_replaceable(self.out)
        model = self._model()
        probes = [] if self.data is None else open_probes(model, self.data, self.samples, self.seed, _tell)
        settings = CompressSettings(**{f.name: getattr(self, f.name) for f in fields(CompressSettings)})
        if aims:
            small = self._plan(model, probes, aims)
        else:
            small = compress(model, settings, probes, _tell)
        save_model(small, self.out, command=_command())
        if self.sensitivity is not None:
            self._write_sensitivity(model, _formats(small))
        self._compare(model, small)
        print(f"\n{self.out}: " + "; ".join(edit.summary() for edit in small.edits))
        return 0

    def _model(self) -> Any:
        from vitrail.inference.model_loading import find_model
        from vitrail.parts.exported_file import check_layers

        model = find_model(self.model, self.weights, self.device)
        check_layers(model, "its weights are needed to compress it")
        return model

    def _write_sensitivity(self, model: Any, chosen: dict[str, str]) -> None:
        """Quantize one layer at a time, and write the chart."""
        from vitrail.atomic_io import write_file
        from vitrail.compress.calibration_data import open_probes
        from vitrail.compress.sensitivity import layer_sensitivity
        from vitrail.compress.sensitivity_page import sensitivity_page

        if self.data is None:
            raise VitrailError("Sensitivity is measured on data. Give --data.")
        probes = open_probes(model, self.data, self.samples, self.seed, _tell)
        found = layer_sensitivity(model.eval(), probes, note=_tell)
        assert self.sensitivity is not None, "its caller checked"
        write_file(self.sensitivity, sensitivity_page(model.variant, found, chosen, _command()).encode())
        worst = max(found, key=lambda one: one.loss)
        print(f"{self.sensitivity}: {len(found)} trials; most sensitive is {worst.layer} in {worst.format}")

    def _plan(self, model: Any, probes: Any, aims: list[str]) -> Any:
        from vitrail.compress.plan import Aim, plan

        if len(aims) > 1 or not self.empty:
            given = [f"--{name}" for name in aims] + ([] if self.empty else [self.words()])
            raise VitrailError(f"An aim is given alone, got {', '.join(given)}. The plan chooses what to remove.")
        if self.data is None:
            raise VitrailError("A plan needs data, to know what is lost. Give --data.")
        aim = Aim.parse(aims[0], str(getattr(self, aims[0])), self.batch)
        found = plan(model, aim, probes, lambda small: self._first_figure(small), self.max_loss, _tell)
        columns, rows = found.table()
        print_table(columns, rows, right=columns[1:])
        print(found.verdict + "\n")
        return found.model

    def _first_figure(self, model: Any) -> tuple[float, bool, str]:
        """Return the first figure of the task, whether higher is better, and its unit."""
        from vitrail.tasks import find_task

        spec = find_task(model.task).metrics[0]
        return self._evaluation(model).metrics()[spec.name], spec.higher_is_better, spec.unit

    def _evaluation(self, model: Any) -> Any:
        from vitrail.tasks import find_options, find_task

        task = find_task(model.task)
        options = find_options(model.task).EvaluateOptions(optimize=False)
        return task.evaluate(model, _open(task, str(self.data), self.split), options)

    def _compare(self, model: Any, small: Any) -> None:
        """Print the table of both."""
        from vitrail.compress.measure import figures, measure_latency

        before, after = figures(model), figures(small)
        rows = [["parameters", f"{before.parameters:,}", f"{after.parameters:,}", _share(before[0], after[0])]]
        if before.multiply_adds and after.multiply_adds:
            counts = before.multiply_adds, after.multiply_adds
            rows.append(["multiply-adds", *(f"{count / 1e6:,.1f} M" for count in counts), _share(*counts)])
        sizes = before.size, after.size
        rows.append(["tensors on disk", *(f"{size / 1e6:.2f} MB" for size in sizes), _share(*sizes)])
        notes = []
        if self.measure:
            time = measure_latency(model, small, self.batch)
            told = [f"{1e3 * each.median:.2f} ms" for each in (time.before, time.after)]
            ratio = time.speedup
            rows.append([f"latency, batch {self.batch}", *told, f"{ratio.median:.2f}x"])
            notes.append(f"latency: {time.verdict}, {ratio.low:.2f} to {ratio.high:.2f} times as fast ({time.how})")
        try:
            told = [] if self.data is None else [self._evaluation(each) for each in (model, small)]
        except VitrailError as reason:  # images without labels still give the scores
            told = []
            notes.append(f"no figures of the task: {str(reason).partition(chr(10))[0]}")
        if told:
            rows += _figures(model, *told)
            notes += [f"before  {told[0].summary()}", f"after   {told[1].summary()}"]
        print_table(["", "before", "after", "change"], rows, right=["before", "after", "change"])
        print("\n".join(["", *notes]) if notes else "", end="\n" if notes else "")


def _formats(model: Any) -> dict[str, str]:
    """Return the format of each quantized layer of a model."""
    return {
        name: kind for edit in model.edits if edit.kind == "quantize_weights" for name, kind in edit.formats.items()
    }


def _figures(model: Any, before: Any, after: Any) -> list[list[str]]:
    from vitrail.tasks import find_task

    rows = []
    values, others = before.metrics(), after.metrics()
    for spec in find_task(model.task).metrics:
        if values.get(spec.name) is None or others.get(spec.name) is None:
            continue
        lost = others[spec.name] - values[spec.name]
        change = f"{100 * lost:+.1f} points" if spec.unit == "%" else f"{lost:+.3g} {spec.unit}"
        rows.append([spec.title, spec.format(values[spec.name]), spec.format(others[spec.name]), change])
    return rows


def _open(task: Any, data: str, split: str) -> Any:
    """Open the split of the figures."""
    if split != "auto":
        return task.open_split(data, split)
    for name in ("test", "val"):
        try:
            return task.open_split(data, name)
        except VitrailError:
            continue
    return task.open_split(data, "all")


def _share(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _command() -> str:
    from shlex import join

    return join(["vitrail", *sys.argv[1:]])
