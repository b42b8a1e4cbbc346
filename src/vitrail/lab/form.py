"""Which form of a model answers a job: the plain one, or `vitrail.optimize`'s where that is faster here and agrees."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.fast.optimize import DTYPES, PRECISIONS, Precision, optimize, unbuilt
from vitrail.lab.bench.agreement import BARS, Agreement, compare
from vitrail.lab.bench.execution import finished
from vitrail.lab.bench.turns import Clock
from vitrail.native.instructions import computes_bf16
from vitrail.parts.backbone import Classifier

Answer = Callable[[Tensor], Tensor]

CHECKED = 4
"""Pictures of a job that both forms answer, to be compared and timed; on a GPU, which few do not fill, a batch."""

WORTH = 1.05
"""The fast form is taken from this ratio on; below, it may be noise."""

# What compiling a library costs, once for a machine: 5 to 9 seconds of one core where it was measured.
_COMPILING = 7.0
# Nobody notices that a job is over so much sooner; and models without numbers to lay out have modules to build.
_NOTICED = 0.25
# Laying out a model for `optimize` took 5 to 30 times as long as bringing each of its weights into another order once.
_LAYING_OUT = 15.0

_FEW = "a fast form does not pay off for so few pictures"


@dataclass(frozen=True)
class Form:
    """The form of a model that answers.

    Args:
        name: `plain` or `fast`.
        precision: what it computes in, `fp32`, `bf16` or `int8`.
        answer: from pictures `(B, C, Y, X)` to fp32 logits `(B, K)`.
        reason: why it is the plain one, or not in the precision that was asked for.
        speedup: of the fast one, how many times as fast as the plain one it was.
    """

    name: Literal["plain", "fast"]
    precision: str
    answer: Answer
    reason: str = ""
    speedup: float | None = None

    def __str__(self) -> str:
        if self.speedup is None:
            return f"{self.name} form in {self.precision}: {self.reason}"
        return f"fast form: {self.speedup:.1f}x in {self.precision}" + (f" ({self.reason})" if self.reason else "")


Told = Callable[[Form], None]
"""Called once, when it is clear which form answers."""


class Answerer:
    """Answers the batches of a job, after it has found out on the first of them which form is to do so.

    The model must be in evaluation mode, and gradients off; see `asking`.

    Args:
        model: the plain form.
        pictures: how many the job has; None where nobody knows, which counts as many.
        precision: what to compute in. `auto` is bf16 in the fast form where the hardware computes in it, and else
            fp32. `int8` is taken where it is faster and agrees, however few the pictures; where not, it is `auto`.
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
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
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
        part = images if self._device().type == "cuda" else images[:CHECKED]
        refusal = self._refusal(images)
        if refusal:
            return replace(plain, reason=refusal), plain.answer(part)
        first, seconds = self._timed(plain.answer, part)
        job = float("inf") if self.pictures is None else seconds / len(part) * self.pictures
        reasons: list[str] = []
        for precision in self._wanted():
            try:
                self._weigh(job, precision)
                fast, answers = self._try(part, first if plain.precision == "fp32" else None, seconds, precision)
            except VitrailError as reason:
                reasons.append(str(reason))
            else:
                return replace(fast, reason="; ".join(reasons)), answers
        return replace(plain, reason="; ".join(reasons)), first

    def _plain(self) -> Form:
        weights = next((value.dtype for value in self.model.parameters()), torch.float32)
        if self.precision == "bf16" and weights != torch.bfloat16:
            return Form("plain", "bf16", in_bf16(self.model))
        return Form("plain", _NAMES.get(weights, str(weights).removeprefix("torch.")), self.model)

    def _wanted(self) -> tuple[Precision, ...]:
        """Return the precisions of the fast forms to try; the first that is faster and agrees is taken."""
        usual: Precision = "bf16" if computes_bf16(self._device()) else "fp32"
        return {"auto": (usual,), "int8": ("int8", usual)}.get(self.precision, (self.precision,))

    def _refusal(self, images: Tensor) -> str | None:
        """Say why there is nothing to find out; None where there is."""
        if not self.fast:
            return "as asked"
        if hasattr(self.model, "kept"):
            return "the model was given as it is"
        if type(self.model) is not Classifier:
            return f"{type(self.model).__name__} has no other"
        if any(value.device.type not in ("cpu", "cuda") or value.dtype != torch.float32 for value in self._weights()):
            return "the fast one is for fp32 weights on a CPU or a CUDA device"
        if any(each._forward_hooks or each._forward_pre_hooks for each in self.model.modules()):
            return "somebody listens to its parts (forward hooks), which the fast one would not call"
        few = len(images) < CHECKED or (self.pictures is not None and self.pictures <= CHECKED)
        return _FEW if few and self.precision != "int8" else None

    def _device(self) -> torch.device:
        return next((value.device for value in self.model.parameters()), torch.device("cpu"))

    def _weights(self) -> list[Tensor]:
        return [value.detach() for value in self.model.parameters()]

    def _weigh(self, job: float, precision: Precision) -> None:
        """Refuse a form that a job of so many seconds is too short for, by the time of laying out one of its weights.

        It is worth it where half the job, what a form twice as fast saves, is more than building it takes. Who asks for
        int8 is not asked how many pictures there are.

        Raises:
            VitrailError: building takes longer than it saves.
        """
        if precision == "int8":
            return
        weights = self._weights()
        largest = max((value.flatten(1) for value in weights if value.ndim > 1), key=Tensor.numel)

        def lay_out(images: Tensor) -> Tensor:
            return images.to(DTYPES[precision]).t().contiguous()

        lay_out(largest)  # its memory comes from the system the first time
        each = self._once(lay_out, largest)[1] / largest.numel()
        laying_out = _LAYING_OUT * each * sum(map(Tensor.numel, weights))
        compiling = _COMPILING * -(-unbuilt(self.model, precision) // (os.cpu_count() or 1))
        if job / 2 <= _NOTICED + laying_out + compiling:
            raise VitrailError(_FEW)

    def _try(self, part: Tensor, truth: Tensor | None, seconds: float, precision: Precision) -> tuple[Form, Tensor]:
        """Return the fast form with its answers.

        Args:
            part: pictures.
            truth: what the model answers in fp32, where that is known.
            seconds: how long the plain form took.
            precision: of the fast form.

        Raises:
            VitrailError: it is not to be taken; the message says why.
        """
        form: Any = optimize(self.model, precision)  # type: ignore[arg-type]
        reason = next((text for text in form.kept if text.startswith("everything")), None)
        if reason is not None:
            raise VitrailError(reason.removeprefix("everything").lstrip(": "))
        answers, its_seconds = self._timed(form, part)
        agreement = compare(answers, self.model(part) if truth is None else truth, precision)
        if not agreement.holds:
            raise VitrailError(f"the answers of the fast one in {precision} {_lack(agreement)}")
        speedup = seconds / its_seconds
        if speedup < WORTH:
            kept = f"; it keeps {next(iter(form.kept))}" if form.kept else ""
            raise VitrailError(f"the fast one in {precision} is no faster here ({speedup:.2f}x){kept}")
        return Form("fast", precision, form, speedup=speedup), answers

    def _timed(self, answer: Answer, images: Tensor) -> tuple[Tensor, float]:
        """Return the answers and the seconds that they take; short times are the least of three."""
        if self._device().type == "cuda":
            answer(images)  # kernels are built and libraries come up
        times: list[float] = []
        while True:
            logits, seconds = self._once(answer, images)
            times.append(seconds)
            # The first call also pays for tables and memory that later ones find.
            if len(times) == 3 or times[0] > 0.2:
                return logits, min(times)

    def _once(self, answer: Answer, images: Tensor) -> tuple[Tensor, float]:
        """Return an answer and the seconds until it is there."""
        start = self._clock()
        logits = answer(images)
        finished(self._device())
        return logits, self._clock() - start


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def in_bf16(model: nn.Module) -> Answer:
    """Return the plain form of a model with its weights in bf16; pictures come and logits go in fp32."""
    copy = deepcopy(model).to(torch.bfloat16)
    return lambda images: copy(images.to(torch.bfloat16)).float()


def _lack(agreement: Agreement) -> str:
    """Say what answers lack."""
    if agreement.error is None:
        return "are not numbers"
    if agreement.error > BARS[agreement.precision]:
        return f"are {agreement.error:.1%} off"
    return f"name another class for {1 - agreement.same_decided:.0%} of the pictures that are clear"
