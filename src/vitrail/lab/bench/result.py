"""What was measured: raw times and what follows from them, as plain values for JSON and for the page."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitrail.atomic_io import write_file
from vitrail.lab.bench.accuracy import Agreement
from vitrail.lab.bench.cold_start import ColdStart
from vitrail.lab.bench.interleaved_timing import Timings
from vitrail.lab.bench.statistics import Quantiles


@dataclass(frozen=True)
class Entry:
    """One contender on batches of one size.

    Args:
        name: the contender.
        ours: whether it is Vitrail itself.
        way: how it ran the model, the fastest way that it has.
        others: what became of its other ways.
        turns: seconds of each call, by round.
        agreement: how near its answers are to the reference.
    """

    name: str
    ours: bool
    way: str
    others: dict[str, str]
    turns: Timings
    agreement: Agreement


@dataclass(frozen=True)
class Phase:
    """All contenders on batches of one size.

    Args:
        batch: images in a batch.
        entries: who took part.
        absent: who did not, with the reason.
        product: seconds of the machine's fastest matrix product, in the same rounds.
    """

    batch: int
    entries: tuple[Entry, ...]
    absent: dict[str, str]
    product: Timings

    @property
    def ours(self) -> Entry:
        """The faster one of ours."""
        return min((entry for entry in self.entries if entry.ours), key=_seconds)

    @property
    def best_peer(self) -> Entry | None:
        """The fastest peer; None without peers. One whose answers are off counts too: its work is the same."""
        return min((entry for entry in self.entries if not entry.ours), key=_seconds, default=None)

    def images_per_second(self, entry: Entry) -> Quantiles:
        """Return the images a second of a contender, over the rounds."""
        return Quantiles.of(self.batch / seconds for seconds in entry.turns.rounds)


@dataclass(frozen=True)
class Bench:
    """One run of the bench.

    Args:
        name: the model.
        subject: how to build it.
        precision: `fp32`, `bf16` or `int8`: what was asked for; each entry's agreement says what it computed in.
        threads: threads of each contender.
        rounds: turns of each contender.
        macs: multiply-adds of one image; None where nobody can count them.
        parameters: number of parameters.
        trained: whether its weights were learnt.
        product: the machine's fastest matrix product.
        product_flops: its floating-point operations.
        checked: what the answers were compared on.
        phases: one for each size of batch.
        starts: seconds until the first answer, and memory, each in a process of its own.
        date: when, as in ISO 8601.
        command: what was typed.
        machine: what it ran on.
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
        """Whether the answers of ours agree with the reference in every phase."""
        return all(entry.agreement.holds for phase in self.phases for entry in phase.entries if entry.ours)

    def product_rate(self, phase: Phase) -> Quantiles:
        """Return the operations a second of the fastest product during a phase."""
        return Quantiles.of(self.product_flops / seconds for seconds in phase.product.rounds)

    def geu(self, phase: Phase, entry: Entry) -> Quantiles | None:
        """Return the share of the product rate that a contender reaches, round by round; None without a count.

        Formula: GEU = (2 · multiply-adds · batch / seconds) / rate of the fastest product.
        """
        if self.macs is None:
            return None
        flops = 2 * self.macs * phase.batch
        pairs = zip(entry.turns.rounds, phase.product.rounds, strict=True)
        return Quantiles.of(flops / own / (self.product_flops / product) for own, product in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: every time that was taken, and the figures that follow."""
        phases = [{**asdict(phase), "figures": _figures(self, phase)} for phase in self.phases]
        return {**asdict(self), "phases": phases, "sound": self.sound}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_file(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())


def _seconds(entry: Entry) -> float:
    return entry.turns.spread.median


def _figures(bench: Bench, phase: Phase) -> dict[str, dict[str, Any]]:
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
