"""Benchmark runner: build the model, then for each batch size prepare all candidates, time them, compare outputs."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import torch
from torch import Tensor

from vitrail.bench.candidate import Answer, Candidate, Variant, foreign
from vitrail.bench.cold_start import ColdStart, measure_start, try_alone
from vitrail.bench.environment import place
from vitrail.bench.inputs import blotches, views
from vitrail.bench.interleaved_timing import Timings, alternate
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.prepare import Prepared, prepare_candidate
from vitrail.bench.result import BenchResult, Entry, Phase
from vitrail.bench.torch_runners import unchanged
from vitrail.errors import VitrailError
from vitrail.fused.accuracy import BARS, compare
from vitrail.inference.flops import count_parameters, counted_macs
from vitrail.machine.matmul_peak import Product, best_product
from vitrail.parts.model import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
"""Dtype of the fastest GEMM for each precision; int8 is compared with bf16."""

_PRODUCT = "the machine's product"  # timed interleaved with the candidates

OnMessage = Callable[[str], None]


@dataclass(frozen=True)
class BenchPlan:
    """Settings of a benchmark.

    Args:
        batches: batch sizes, one phase each.
        precision: `fp32`, `bf16` or `int8`; candidates without int8 compute in bf16.
        rounds: number of rounds in a phase.
        seconds: minimum length of a turn.
        threads: number of threads of each candidate; 0 for PyTorch's current number.
        check: number of images to compare outputs on.
        data: real images to compare outputs on: a folder, a path or a pattern.
        starts: whether to measure cold starts and memory, in subprocesses.
        warm: whether those may use the user's caches.

    Raises:
        VitrailError: a number is too small, or the precision is unknown.
    """

    batches: tuple[int, ...] = (1, 8, 32)
    precision: str = "bf16"
    rounds: int = 7
    seconds: float = 0.5
    threads: int = 0
    check: int = 128
    data: str | None = None
    starts: bool = True
    warm: bool = False

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise VitrailError(f"batch is {', '.join(map(str, self.batches)) or 'empty'}; each must be at least 1.")
        for name, least in {"rounds": 1, "check": 1, "threads": 0}.items():
            if getattr(self, name) < least:
                raise VitrailError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.precision not in BARS:
            raise VitrailError(f"precision is '{self.precision}'; it must be fp32, bf16 or int8.")


def run_bench(
    subject: ModelSpec,
    candidates: Sequence[Candidate],
    plan: BenchPlan,
    command: str = "",
    on_message: OnMessage = lambda line: None,
) -> BenchResult:
    """Benchmark a model against its peers.

    Args:
        subject: the model.
        candidates: the candidates, at least one of ours.
        plan: the settings.
        command: the command line, for the report.
        on_message: called with each progress message.

    Raises:
        VitrailError: the model or the images are not available.
    """
    with use_threads(plan.threads) as threads:
        model = subject.build()
        if not hasattr(model, "preprocess"):
            raise VitrailError(
                f"{subject.model} is of the task {model.task}.\n"
                "The benchmark measures models that give images classes, masks or boxes: take one of those."
            )
        macs, unknown = counted_macs(model, model.preprocess.size)  # fail before minutes of measuring
        if unknown:
            on_message(f"There will be no GEU. {unknown}")
        stage = _Stage.of(model, subject, plan, on_message)
        phases = tuple(stage.phase(candidates, batch) for batch in plan.batches)
        starts = tuple(_starts(subject, phases[0], plan, threads, on_message)) if plan.starts else ()
        return BenchResult(
            name=model.variant,
            subject=subject.to_dict(),
            precision=plan.precision,
            threads=threads,
            rounds=plan.rounds,
            macs=macs,
            parameters=count_parameters(model),
            trained=subject.trained,
            product=stage.product.name,
            product_flops=stage.product.flops,
            checked=stage.checked,
            phases=phases,
            starts=starts,
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=command,
            machine=place(),
        )


@contextmanager
def use_threads(threads: int) -> Iterator[int]:
    """Set the number of threads inside the block (0: unchanged), and yield it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


def ask_all(answer: Answer, images: Tensor, batch: int) -> Tensor:
    """Return the logits of all images in batches of one size; the last is padded with the first images.

    Example:
        >>> ask_all(lambda images: images.sum((1, 2, 3))[:, None], torch.ones(3, 1, 2, 2), batch=2).flatten()
        tensor([4., 4., 4.])
    """
    groups = [_of_size(group, batch) for group in images.split(batch)]
    return torch.cat([answer(group) for group in groups])[: len(images)]


def _of_size(images: Tensor, batch: int) -> Tensor:
    """Return exactly `batch` images, repeating them if there are fewer."""
    return images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].contiguous()


@dataclass(frozen=True)
class _Stage:
    """Shared state of the phases: the model, the images, the reference logits, and the fastest GEMM."""

    subject: ModelSpec
    threads: int
    model: Model
    images: Tensor
    expected: Tensor
    checked: str
    product: Product
    plan: BenchPlan
    on_message: OnMessage

    @classmethod
    def of(cls, model: Model, subject: ModelSpec, plan: BenchPlan, on_message: OnMessage) -> "_Stage":
        images, checked = _images(model, plan)
        images = images.to(subject.device)
        on_message(f"asking the model in fp32 about {checked}")
        expected = ask_all(unchanged(model, images), images, min(8, len(images)))
        on_message("looking for the machine's fastest product")
        product = best_product(DTYPES[plan.precision], subject.device)
        return cls(subject, torch.get_num_threads(), model, images, expected, checked, product, plan, on_message)

    def phase(self, candidates: Sequence[Candidate], batch: int) -> Phase:
        """Prepare all candidates for one batch size, time them, and compare the outputs."""
        example = _of_size(self.images, batch)
        joined: dict[Candidate, Prepared] = {}
        absent: dict[str, str] = {}
        for candidate in candidates:
            self.on_message(f"batch {batch}: preparing {candidate.name}")
            try:
                joined[candidate] = prepare_candidate(
                    candidate, self.model, example, self.plan.precision, partial(self._probe, candidate, example)
                )
            except VitrailError as error:
                absent[candidate.name] = str(error)
        calls = {
            _seat(candidate, way): partial(answer, example)
            for candidate, ready in joined.items()
            for way, answer in ready.ways.items()
        }
        turns = alternate(
            {**calls, _PRODUCT: self.product.run},
            self.plan.rounds,
            self.plan.seconds,
            on_round=lambda done: self.on_message(f"batch {batch}: round {done} of {self.plan.rounds} is over"),
        )
        self.on_message(f"batch {batch}: comparing answers")
        entries: list[Entry] = []
        for candidate, ready in joined.items():
            try:
                entries.append(self._entry(candidate, ready, turns, batch))
            except VitrailError as error:
                absent[candidate.name] = str(error)
        self.on_message(f"batch {batch}: {_medians(entries)}")  # in case that the run is stopped before its tables
        del joined, calls
        _forget_programs()
        return Phase(batch, tuple(entries), absent, turns[_PRODUCT])

    def _probe(self, candidate: Candidate, example: Tensor, way: Variant) -> None:
        """Try a variant in a subprocess."""
        task = {"batch": len(example), "precision": self.plan.precision, "threads": self.threads}
        try_alone(self.subject, candidate.name, way.name, **task)

    def _entry(self, candidate: Candidate, ready: Prepared, turns: dict[str, Timings], batch: int) -> Entry:
        """Keep a candidate's fastest variant, and compare its outputs with the reference."""
        taken = {way: turns[_seat(candidate, way)] for way in ready.ways}
        best = min(taken, key=lambda way: taken[way].spread.median)
        others = {
            way: f"{taken[best].times_as_fast(slower).median:.2f} times its time"
            for way, slower in taken.items()
            if way != best
        }
        with nullcontext() if candidate.ours else foreign(candidate.name):
            got = ask_all(ready.ways[best], self.images, batch)
            agreement = compare(got, self.expected, candidate.precision(self.plan.precision), self.subject.trained)
        return Entry(candidate.name, candidate.ours, best, others | ready.others, taken[best], agreement)


def _medians(entries: Sequence[Entry]) -> str:
    """Return the median time of a call of each candidate, the fastest first."""
    times = sorted((1e3 * entry.turns.spread.median, entry.name) for entry in entries)
    return ", ".join(f"{name} {time:.3g} ms" for time, name in times)


def _seat(candidate: Candidate, way: str) -> str:
    """Return the unique name of a candidate's variant."""
    return f"{candidate.name}: {way}"


def _images(model: Model, plan: BenchPlan) -> tuple[Tensor, str]:
    """Return the images for the comparison, and their description."""
    if plan.data is not None:
        return views(plan.data, model.preprocess, plan.check), f"{plan.check} views of the images in {plan.data}"
    drawn = blotches(plan.check, model.config.in_channels, model.preprocess.size)
    return drawn, f"{plan.check} drawn images"


def _starts(
    subject: ModelSpec, phase: Phase, plan: BenchPlan, threads: int, on_message: OnMessage
) -> Iterator[ColdStart]:
    """Measure the cold start of every candidate of a phase."""
    for entry in phase.entries:
        on_message(f"first answer of {entry.name}, in a process of its own")
        yield measure_start(
            subject,
            entry.name,
            entry.way,
            batch=phase.batch,
            precision=plan.precision,
            threads=threads,
            warm=plan.warm,
        )


def _forget_programs() -> None:
    """Reset the programs compiled for one shape, so that the next ones do not pay for their guards."""
    torch.compiler.reset()
    gc.collect()
