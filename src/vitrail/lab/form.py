"""Which form of a model answers a job: the plain one, or `vitrail.optimize`'s where that is faster here and agrees."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.fast.optimize import optimize
from vitrail.lab.bench.agreement import compare
from vitrail.lab.bench.turns import Clock
from vitrail.native.instructions import computes_bf16
from vitrail.native.library import built
from vitrail.parts.backbone import Classifier

Precision = Literal["auto", "fp32", "bf16"]
"""What to compute in: `auto` is bf16 in the fast form where the hardware computes in it, and else fp32."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Answer = Callable[[Tensor], Tensor]

CHECKED = 4
"""Pictures of a job that both forms answer, to be compared and timed."""

WORTH = 1.05
"""The fast form is taken from this ratio on; below, it may be noise."""

# What to compile costs, once for a machine: 10 to 20 seconds where it was measured.
_COMPILING = 15.0
# Nobody notices that a job is over so much sooner; and models without numbers to lay out have modules to build.
_NOTICED = 0.25
# Laying out a model for `optimize` took 5 to 30 times as long as bringing each of its weights into another order once.
_LAYING_OUT = 15.0


@dataclass(frozen=True)
class Form:
    """The form of a model that answers.

    Args:
        name: `plain` or `fast`.
        precision: what it computes in, `fp32` or `bf16`.
        answer: from pictures `(B, C, Y, X)` to fp32 logits `(B, K)`.
        reason: why it is the plain one.
        speedup: of the fast one, how many times as fast as the plain one it was.
    """

    name: Literal["plain", "fast"]
    precision: str
    answer: Answer
    reason: str = ""
    speedup: float | None = None

    def __str__(self) -> str:
        if self.speedup is not None:
            return f"fast form: {self.speedup:.1f}x in {self.precision}"
        return f"{self.name} form in {self.precision}: {self.reason}"


Told = Callable[[Form], None]
"""Called once, when it is clear which form answers."""


class Answerer:
    """Answers the batches of a job, after it has found out on the first of them which form is to do so.

    The model must be in evaluation mode, and gradients off; see `asking`.

    Args:
        model: the plain form.
        pictures: how many the job has; None where nobody knows, which counts as many.
        precision: see `Precision`.
        fast: whether the fast form may answer.
        told: hears of the form.
        clock: gives the time in seconds.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1).eval()
        >>> answerer = Answerer(model, pictures=1, told=print)
        >>> answerer(torch.zeros(1, 3, 32, 32)).shape
        plain form in fp32: a fast form does not pay off for so few pictures
        torch.Size([1, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: int | None,
        *,
        precision: Precision = "auto",
        fast: bool = True,
        told: Told = lambda form: None,
        clock: Clock = perf_counter,
    ):
        if precision != "auto" and precision not in PRECISIONS:
            raise unknown("precision", precision, ("auto", *PRECISIONS))
        self.model, self.pictures, self.precision, self.fast = model, pictures, precision, fast
        self.form: Form | None = None
        self._told, self._clock = told, clock

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        if self.form is not None:
            return self.form.answer(images)
        self.form, first = self._choose(images)
        self._told(self.form)
        if len(first) == len(images):
            return first
        # What has been answered is kept: in a small job it is a good part of it.
        return torch.cat([first, self.form.answer(images[len(first) :])])

    def _choose(self, images: Tensor) -> tuple[Form, Tensor]:
        """Return the form, and its answers to the first few pictures."""
        plain = self._plain()
        part, refusal = images[:CHECKED], self._refusal(images)
        if refusal:
            return Form("plain", plain.precision, plain.answer, refusal), plain.answer(part)
        first, seconds = _timed(plain.answer, part, self._clock)
        job = float("inf") if self.pictures is None else seconds / len(part) * self.pictures
        if not self._pays_off(job):
            reason = "a fast form does not pay off for so few pictures"
            return Form("plain", plain.precision, plain.answer, reason), first
        try:
            fast, its_first = self._try(plain, part, first, seconds)
        except VitrailError as error:
            return Form("plain", plain.precision, plain.answer, str(error)), first
        return fast, its_first

    def _plain(self) -> Form:
        weights = next((value.dtype for value in self.model.parameters()), torch.float32)
        if self.precision == "bf16" and weights != torch.bfloat16:
            return Form("plain", "bf16", in_bf16(self.model))
        return Form("plain", _NAMES.get(weights, str(weights).removeprefix("torch.")), self.model)

    @property
    def _wanted(self) -> str:
        """Precision of the fast form."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if computes_bf16(torch.device("cpu")) else "fp32"

    def _refusal(self, images: Tensor) -> str | None:
        """Say why there is nothing to find out; None where there is."""
        if not self.fast:
            return "as asked"
        if hasattr(self.model, "kept"):
            return "the model was given as it is"
        if type(self.model) is not Classifier:
            return f"{type(self.model).__name__} has no other"
        if any(value.device.type != "cpu" or value.dtype != torch.float32 for value in self.model.parameters()):
            return "the fast one is for fp32 weights on a CPU"
        if any(each._forward_hooks or each._forward_pre_hooks for each in self.model.modules()):
            return "somebody listens to its parts (forward hooks), which the fast one would not call"
        if len(images) < CHECKED or (self.pictures is not None and self.pictures <= CHECKED):
            return "a fast form does not pay off for so few pictures"
        return None

    def _pays_off(self, job: float) -> bool:
        """Say whether a job of so many seconds is worth a fast form, by the time of laying out one of its weights.

        It is where half the job, what a form twice as fast saves, is more than building it takes.
        """
        weights = [value.detach() for value in self.model.parameters()]
        largest = max((value.flatten(1) for value in weights if value.ndim > 1), key=Tensor.numel)

        def lay_out() -> Tensor:
            return largest.to(PRECISIONS[self._wanted]).t().contiguous()

        lay_out()  # its memory comes from the system the first time
        start = self._clock()
        lay_out()
        each = (self._clock() - start) / largest.numel()
        building = _LAYING_OUT * each * sum(map(Tensor.numel, weights))
        return job / 2 > _NOTICED + building + (0.0 if built("products") else _COMPILING)

    def _try(self, plain: Form, part: Tensor, first: Tensor, seconds: float) -> tuple[Form, Tensor]:
        """Return the fast form with its answers, or the plain one with why it is not the fast one."""
        wanted = self._wanted
        form: Any = optimize(self.model, precision=wanted)  # type: ignore[arg-type]
        reason = next((text for text in form.kept if text.startswith("everything")), None)
        if reason is not None:
            return Form("plain", plain.precision, plain.answer, reason.removeprefix("everything: ")), first
        answers, its_seconds = _timed(form, part, self._clock)
        truth = first if plain.precision == "fp32" else self.model(part)
        agreement = compare(answers, truth, wanted)
        speedup = seconds / its_seconds
        if not agreement.holds:
            off = "not numbers" if agreement.error is None else f"{agreement.error:.1%} off"
            reason = f"the answers of the fast one in {wanted} are {off}"
        elif speedup < WORTH:
            kept = f"; it keeps {next(iter(form.kept))}" if form.kept else ""
            reason = f"the fast one in {wanted} is no faster here ({speedup:.2f}x){kept}"
        else:
            return Form("fast", wanted, form, speedup=speedup), answers
        return Form("plain", plain.precision, plain.answer, reason), first


_NAMES = {dtype: name for name, dtype in PRECISIONS.items()}


def in_bf16(model: nn.Module) -> Answer:
    """Return the plain form of a model with its weights in bf16; pictures come and logits go in fp32."""
    copy = deepcopy(model).to(torch.bfloat16)
    return lambda images: copy(images.to(torch.bfloat16)).float()


def _timed(answer: Answer, images: Tensor, clock: Clock) -> tuple[Tensor, float]:
    """Return the answers and the seconds that they take; short times are the least of three."""
    times: list[float] = []
    while True:
        start = clock()
        logits = answer(images)
        times.append(clock() - start)
        # The first call also pays for tables and memory that later ones find.
        if len(times) == 3 or times[0] > 0.2:
            return logits, min(times)
