"""The bench itself: build once, then for each size of batch prepare everybody, time turn by turn, compare answers."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.lab.bench.accuracy import BARS, compare
from vitrail.lab.bench.candidate import Answer, Candidate, Variant, foreign
from vitrail.lab.bench.cold_start import ColdStart, measure_start, try_alone
from vitrail.lab.bench.environment import place
from vitrail.lab.bench.inputs import blotches, views
from vitrail.lab.bench.interleaved_timing import Timings, alternate
from vitrail.lab.bench.model_spec import ModelSpec
from vitrail.lab.bench.prepare import Prepared, make_ready
from vitrail.lab.bench.result import Bench, Entry, Phase
from vitrail.lab.bench.torch_runners import unchanged
from vitrail.lab.flops import count_parameters, counted_macs
from vitrail.lab.matmul_peak import Product, best_product

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
"""What the machine's fastest product is looked for in; int8 is measured against that in bf16."""

_PRODUCT = "the machine's product"  # takes its turns with the contenders

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Args:
        batches: sizes of batches, a phase each.
        precision: `fp32`, `bf16` or `int8`; who knows no int8 computes in bf16.
        rounds: turns that each contender has in a phase.
        seconds: least length of a turn.
        threads: threads of each contender; 0 is as many as PyTorch has now.
        check: images that the answers are compared on.
        data: real images to compare on: a folder, a path or a pattern.
        starts: whether to measure first answers and memory, in processes of their own.
        warm: whether those may use what the user's caches hold.

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
    subject: ModelSpec, contenders: Sequence[Candidate], plan: Plan, command: str = "", tell: Tell = lambda line: None
) -> Bench:
    """Measure a model against its peers.

    Args:
        subject: the model.
        contenders: who takes part, one of ours at least.
        plan: how.
        command: what was typed, for the page.
        tell: told in a line what happens now.

    Raises:
        VitrailError: the model or the images cannot be had.
    """
    with use_threads(plan.threads) as threads:
        model = subject.build()
        macs, unknown = counted_macs(model, model.preprocess.size)  # what can fail does so before minutes of measuring
        if unknown:
            tell(f"There will be no GEU. {unknown}")
        stage = _Stage.of(model, subject, plan, tell)
        phases = tuple(stage.phase(contenders, batch) for batch in plan.batches)
        starts = tuple(_starts(subject, phases[0], plan, threads, tell)) if plan.starts else ()
        return Bench(
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
    """Compute with so many threads inside the block (0: as many as now), and give their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


def ask_all(answer: Answer, pictures: Tensor, batch: int) -> Tensor:
    """Return the logits of all images, asked in batches of one size; the last is filled up with the first images.

    Example:
        >>> ask_all(lambda images: images.sum((1, 2, 3))[:, None], torch.ones(3, 1, 2, 2), batch=2).flatten()
        tensor([4., 4., 4.])
    """
    groups = [_of_size(group, batch) for group in pictures.split(batch)]
    return torch.cat([answer(group) for group in groups])[: len(pictures)]


def _of_size(pictures: Tensor, batch: int) -> Tensor:
    """Return exactly `batch` images, repeating them where there are fewer."""
    return pictures.repeat(-(-batch // len(pictures)), 1, 1, 1)[:batch].contiguous()


@dataclass(frozen=True)
class _Stage:
    """What every phase needs: the model, what it is asked, what it answers, and the fastest product."""

    subject: ModelSpec
    threads: int
    model: Any
    pictures: Tensor
    expected: Tensor
    checked: str
    product: Product
    plan: Plan
    tell: Tell

    @classmethod
    def of(cls, model: Any, subject: ModelSpec, plan: Plan, tell: Tell) -> "_Stage":
        pictures, checked = _pictures(model, plan)
        pictures = pictures.to(subject.device)
        tell(f"asking the model in fp32 about {checked}")
        expected = ask_all(unchanged(model, pictures), pictures, min(8, len(pictures)))
        tell("looking for the machine's fastest product")
        product = best_product(DTYPES[plan.precision], subject.device)
        return cls(subject, torch.get_num_threads(), model, pictures, expected, checked, product, plan, tell)

    def phase(self, contenders: Sequence[Candidate], batch: int) -> Phase:
        """Prepare everybody for batches of one size, time, and compare the answers."""
        example = _of_size(self.pictures, batch)
        joined: dict[Candidate, Prepared] = {}
        absent: dict[str, str] = {}
        for contender in contenders:
            self.tell(f"batch {batch}: preparing {contender.name}")
            try:
                joined[contender] = make_ready(
                    contender, self.model, example, self.plan.precision, partial(self._probe, contender, example)
                )
            except VitrailError as error:
                absent[contender.name] = str(error)
        calls = {
            _seat(contender, way): partial(answer, example)
            for contender, ready in joined.items()
            for way, answer in ready.ways.items()
        }
        turns = alternate(
            {**calls, _PRODUCT: self.product.run},
            self.plan.rounds,
            self.plan.seconds,
            tell=lambda done: self.tell(f"batch {batch}: round {done} of {self.plan.rounds} is over"),
        )
        self.tell(f"batch {batch}: comparing answers")
        entries: list[Entry] = []
        for contender, ready in joined.items():
            try:
                entries.append(self._entry(contender, ready, turns, batch))
            except VitrailError as error:
                absent[contender.name] = str(error)
        del joined, calls
        _forget_programs()
        return Phase(batch, tuple(entries), absent, turns[_PRODUCT])

    def _probe(self, contender: Candidate, example: Tensor, way: Variant) -> None:
        """Try a way in a process of its own."""
        task = {"batch": len(example), "precision": self.plan.precision, "threads": self.threads}
        try_alone(self.subject, contender.name, way.name, **task)

    def _entry(self, contender: Candidate, ready: Prepared, turns: dict[str, Timings], batch: int) -> Entry:
        """Keep a contender's fastest way, and compare its answers with the reference."""
        taken = {way: turns[_seat(contender, way)] for way in ready.ways}
        best = min(taken, key=lambda way: taken[way].spread.median)
        others = {
            way: f"{taken[best].times_as_fast(slower).median:.2f} times its time"
            for way, slower in taken.items()
            if way != best
        }
        with nullcontext() if contender.ours else foreign(contender.name):
            got = ask_all(ready.ways[best], self.pictures, batch)
            agreement = compare(got, self.expected, contender.precision(self.plan.precision), self.subject.trained)
        return Entry(contender.name, contender.ours, best, others | ready.others, taken[best], agreement)


def _seat(contender: Candidate, way: str) -> str:
    """Name a way of a contender among all that take turns."""
    return f"{contender.name}: {way}"


def _pictures(model: Any, plan: Plan) -> tuple[Tensor, str]:
    """Return what the answers are compared on, and what to call it."""
    if plan.data is not None:
        return views(plan.data, model.preprocess, plan.check), f"{plan.check} views of the pictures in {plan.data}"
    drawn = blotches(plan.check, model.config.in_channels, model.preprocess.size)
    return drawn, f"{plan.check} drawn pictures"


def _starts(subject: ModelSpec, phase: Phase, plan: Plan, threads: int, tell: Tell) -> Iterator[ColdStart]:
    """Let everybody who took part in a phase begin in a process of its own."""
    for entry in phase.entries:
        tell(f"first answer of {entry.name}, in a process of its own")
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
    """Drop what was compiled for one shape, so that the next one's program does not wait behind its guards."""
    torch.compiler.reset()
    gc.collect()
