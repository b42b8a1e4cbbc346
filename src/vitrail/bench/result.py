"""Benchmark results: raw times and derived figures, as plain values for JSON and the report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitrail.atomic_io import write_file
from vitrail.bench.cold_start import ColdStart
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.statistics import Quantiles
from vitrail.fused.accuracy import Agreement


@dataclass(frozen=True)
class Entry:
    """Result of one candidate at one batch size.

    Args:
        name: the candidate.
        ours: whether it is Vitrail itself.
        way: its fastest variant.
        others: results of its other variants.
        turns: seconds of each call, by round.
        agreement: error of its outputs against the reference.
    """

    name: str
    ours: bool
    way: str
    others: dict[str, str]
    turns: Timings
    agreement: Agreement


@dataclass(frozen=True)
class Phase:
    """Results of all candidates at one batch size.

    Args:
        batch: images in a batch.
        entries: results of the candidates.
        absent: unavailable candidates, with the reason.
        product: seconds of the machine's fastest GEMM, in the same rounds.
    """

    batch: int
    entries: tuple[Entry, ...]
    absent: dict[str, str]
    product: Timings

    @property
    def ours(self) -> Entry:
        """The fastest of our candidates."""
        return min((entry for entry in self.entries if entry.ours), key=_seconds)

    @property
    def best_peer(self) -> Entry | None:
        """The fastest peer, with or without agreeing outputs (its work is the same); None without peers."""
        return min((entry for entry in self.entries if not entry.ours), key=_seconds, default=None)

    def images_per_second(self, entry: Entry) -> Quantiles:
        """Return the throughput of a candidate in images per second, over the rounds."""
        return Quantiles.of(self.batch / seconds for seconds in entry.turns.rounds)


@dataclass(frozen=True)
class BenchResult:
    """One run of the benchmark.

    Args:
        name: the model.
        subject: specification of the model.
        precision: `fp32`, `bf16` or `int8`: the requested precision; that of each entry is in its `agreement`.
        threads: number of threads of each candidate.
        rounds: number of rounds.
        macs: multiply-adds of one image; None if they cannot be counted.
        parameters: number of parameters.
        trained: whether its weights are trained.
        product: the machine's fastest GEMM.
        product_flops: its floating-point operations.
        checked: description of the images for the comparison of outputs.
        phases: one for each batch size.
        starts: cold starts and memory, each in its own process.
        date: date in ISO 8601.
        command: the command line.
        machine: the environment.
    """

    name: str
    subject: dict[str, Any]
    precision: str
    threads: int
    rounds: int
    macs: int | None
    parameters: int
    trained: bool
    product: str
    product_flops: int
    checked: str
    phases: tuple[Phase, ...]
    starts: tuple[ColdStart, ...]
    date: str
    command: str
    machine: dict[str, Any]

    @property
    def sound(self) -> bool:
        """Whether the outputs of our candidates agree with the reference in every phase."""
        return all(entry.agreement.holds for phase in self.phases for entry in phase.entries if entry.ours)

    def product_rate(self, phase: Phase) -> Quantiles:
        """Return the rate of the fastest GEMM during a phase, in operations per second."""
        return Quantiles.of(self.product_flops / seconds for seconds in phase.product.rounds)

    def geu(self, phase: Phase, entry: Entry) -> Quantiles | None:
        """Return the share of the GEMM rate that a candidate reaches, round by round; None without a count.

        Formula: GEU = (2 · multiply-adds · batch / seconds) / rate of the fastest GEMM.
        """
        if self.macs is None:
            return None
        flops = 2 * self.macs * phase.batch
        pairs = zip(entry.turns.rounds, phase.product.rounds, strict=True)
        return Quantiles.of(flops / own / (self.product_flops / product) for own, product in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: all times, and the derived figures."""
        phases = [{**asdict(phase), "figures": _figures(self, phase)} for phase in self.phases]
        return {**asdict(self), "phases": phases, "sound": self.sound}

    def save(self, path: Path) -> None:
        """Write the result as JSON."""
        write_file(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())


def _seconds(entry: Entry) -> float:
    return entry.turns.spread.median


def _figures(bench: BenchResult, phase: Phase) -> dict[str, dict[str, Any]]:
    ours = phase.ours
    shares = {entry.name: bench.geu(phase, entry) for entry in phase.entries}
    return {
        entry.name: {
            "images_per_second": phase.images_per_second(entry)._asdict(),
            "milliseconds_p95": 1e3 * entry.turns.p95,
            "ours_times_as_fast": ours.turns.times_as_fast(entry.turns)._asdict(),
            "geu": None if (share := shares[entry.name]) is None else share._asdict(),
            "agrees": entry.agreement.holds,
        }
        for entry in phase.entries
    }
