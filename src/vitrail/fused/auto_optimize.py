"""Which form of a model answers a job: the plain one, or `vitrail.optimize`'s where that is faster here and agrees."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from threading import Event
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.fused.ab_trial import Answer, TrialArm, finished, try_out
from vitrail.fused.accuracy import compare
from vitrail.fused.optimize import DTYPES, PRECISIONS, Precision, optimize, unbuilt
from vitrail.native.cpu_features import computes_bf16
from vitrail.parts.backbone import Classifier

FEW = 4
"""A job of so many pictures is done before a fast form is laid out."""

# What compiling a library costs, once for a machine: 5 to 9 seconds of one core where it was measured.
_COMPILING = 7.0
# Nobody notices that a job is over so much sooner; and models without numbers to lay out have modules to build.
_NOTICED = 0.25
# Laying out a model for `optimize` took 5 to 30 times as long as bringing each of its weights into another order once.
_LAYING_OUT = 15.0

_FEW = "a fast form does not pay off for so few pictures"


@dataclass(frozen=True)
class SelectedModel:
    """The form of a model that answers.

    Args:
        name: `plain` or `fast`.
        precision: what it computes in, `fp32`, `bf16` or `int8`.
        answer: from pictures `(B, C, Y, X)` to fp32 logits `(B, K)`.
        reason: why it is the plain one, or not in the precision that was asked for.
        speedup: of the fast one, how many times as fast as the plain one it was.
        checked: on how many pictures that was seen, and that it agrees.
    """

    name: Literal["plain", "fast"]
    precision: str
    answer: Answer
    reason: str = ""
    speedup: float | None = None
    checked: int = 0

    def __str__(self) -> str:
        if self.speedup is None:
            return f"{self.name} form in {self.precision}: {self.reason}"
        seen = f"on the first {self.checked} pictures" if self.checked > 1 else "on the first picture"
        because = f" ({self.reason})" if self.reason else ""
        return f"fast form: {self.speedup:.1f}x in {self.precision} {seen}{because}"


Clock = Callable[[], float]
"""Returns the time in seconds."""

Notify = Callable[[SelectedModel], None]
"""Called once, when it is clear which form answers."""


class InferenceRunner:
    """Answers the batches of a job, after it has found out on the first of them which form is to do so.

    The model must be in evaluation mode, and gradients off; see `inference_mode_for`.

    Args:
        model: the plain form.
        pictures: how many the job has; None where nobody knows, which counts as many.
        precision: what to compute in. `auto` is bf16 in the fast form where the hardware computes in it and that is
            faster, and else fp32. `int8` is taken where it is faster and agrees, however few the pictures; where not,
            it is `auto`.
        fast: whether the fast form may answer.
        notify: hears of the form.
        clock: gives the time in seconds.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1).eval()
        >>> answerer = InferenceRunner(model, pictures=1, notify=print)
        >>> answerer(torch.zeros(1, 3, 32, 32)).shape
        plain form in fp32: a fast form does not pay off for so few pictures
        torch.Size([1, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: int | None,
        *,
        precision: Precision = "fp32",
        fast: bool = True,
        notify: Notify = lambda form: None,
        clock: Clock = perf_counter,
    ):
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.model, self.pictures, self.precision, self.fast = model, pictures, precision, fast
        self.form: SelectedModel | None = None
        self._notify, self._clock = notify, clock
        self.gate = Event()
        """Cleared while a time is taken: whoever reads pictures ahead begins with none then, see `data.prefetch`."""
        self.gate.set()

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        if self.form is not None:
            return self.form.answer(images)
        self.form, first = self._choose(images)
        self._notify(self.form)
        if len(first) == len(images):
            return first
        # What the plain form has answered is kept: in a small job it is a good part of it.
        return torch.cat([first, self.form.answer(images[len(first) :])])

    def _choose(self, images: Tensor) -> tuple[SelectedModel, Tensor]:
        """Return the form, and its answers to the first pictures."""
        plain = self._plain()
        refusal = self._refusal()
        if refusal:
            return replace(plain, reason=refusal), plain.answer(images)
        usual = self._side(plain.answer, images)
        truth = usual if plain.precision == "fp32" else self._side(self.model, images)
        usual.ask(0)
        reasons: list[str] = []
        for precision in self._wanted():
            try:
                self._weigh(usual, precision)
                form, answers = self._try(precision, usual, truth, images)
            except VitrailError as reason:
                reasons.append(str(reason))
            else:
                return replace(form, reason="; ".join(reasons)), answers
        return replace(plain, reason="; ".join(reasons)), usual.answers

    def _try(
        self, precision: Precision, plain: TrialArm, truth: TrialArm, images: Tensor
    ) -> tuple[SelectedModel, Tensor]:
        """Return the fast form with its answers to the batch.

        Raises:
            VitrailError: it is not to be taken; the message says why.
        """
        fast = self._side(self._build(precision), images)
        verdict = try_out(fast, plain, truth, precision)
        seen, answers = len(fast.answers), fast.answers
        if verdict.reason is None and seen < len(images):
            # Asked together, as it will be from now on, it must say the same: more pictures may go another way.
            answers = fast.answer(images)
            verdict = replace(verdict, agreement=compare(answers[:seen], truth.answers[:seen], precision))
        if verdict.reason is not None:
            kept: Any = "" if verdict.faster else next(iter(getattr(fast.answer, "unconverted", ())), "")
            raise VitrailError(verdict.reason + (f"; it keeps {kept}" if kept else ""))
        return SelectedModel("fast", precision, fast.answer, speedup=verdict.speedup, checked=seen), answers

    def _plain(self) -> SelectedModel:
        weights = next((value.dtype for value in self.model.parameters()), torch.float32)
        if self.precision == "bf16" and weights != torch.bfloat16:
            return SelectedModel("plain", "bf16", in_bf16(self.model))
        return SelectedModel("plain", _NAMES.get(weights, str(weights).removeprefix("torch.")), self.model)

    def _wanted(self) -> tuple[Precision, ...]:
        """Return the precisions of the fast forms to try; the first that is faster and agrees is taken."""
        usual: Precision = "bf16" if computes_bf16(self._device()) else "fp32"
        return {"auto": (usual,), "int8": ("int8", usual)}.get(self.precision, (self.precision,))

    def _refusal(self) -> str | None:
        """Say why there is nothing to find out; None where there is."""
        if not self.fast:
            return "as asked"
        if hasattr(self.model, "unconverted"):
            return "the model was given as it is"
        if type(self.model) is not Classifier:
            return f"{type(self.model).__name__} has no other"
        if any(value.device.type not in ("cpu", "cuda") or value.dtype != torch.float32 for value in self._weights()):
            return "the fast one is for fp32 weights on a CPU or a CUDA device"
        if any(each._forward_hooks or each._forward_pre_hooks for each in self.model.modules()):
            return "somebody listens to its parts (forward hooks), which the fast one would not call"
        few = self.pictures is not None and self.pictures <= FEW
        return _FEW if few and self.precision != "int8" else None

    def _device(self) -> torch.device:
        return next((value.device for value in self.model.parameters()), torch.device("cpu"))

    def _weights(self) -> list[Tensor]:
        return [value.detach() for value in self.model.parameters()]

    def _side(self, answer: Answer, images: Tensor) -> TrialArm:
        """Prepare to ask a form: picture by picture, on a GPU, which few do not fill, by the batch."""
        if self._device().type != "cuda":
            return TrialArm(answer, images, 1, self._timed)
        answer(images)  # kernels are built and libraries come up
        return TrialArm(answer, images, len(images), self._timed)

    def _weigh(self, usual: TrialArm, precision: Precision) -> None:
        """Refuse a form that the job is too short for, by the time of one turn and that of laying out one weight.

        It is worth it where what a form twice as fast saves, less the turn that the plain one then took for nothing, is
        more than building it takes. Who asks for int8 is not asked how many pictures there are.

        Raises:
            VitrailError: building takes longer than it saves.
        """
        if precision == "int8" or self.pictures is None:
            return
        saved = usual.least * (self.pictures / usual.size / 2 - 1) - _NOTICED
        if saved <= 0 or saved <= self._building(precision):
            raise VitrailError(_FEW)

    def _building(self, precision: Precision) -> float:
        """Foretell the seconds that `optimize` takes."""
        weights = self._weights()
        largest = max((value.flatten(1) for value in weights if value.ndim > 1), key=Tensor.numel)

        def lay_out(images: Tensor) -> Tensor:
            return images.to(DTYPES[precision]).t().contiguous()

        lay_out(largest)  # its memory comes from the system the first time
        each = self._timed(lay_out, largest)[1] / largest.numel()
        compiling = _COMPILING * -(-unbuilt(self.model, precision) // (os.cpu_count() or 1))
        return _LAYING_OUT * each * sum(map(Tensor.numel, weights)) + compiling

    def _build(self, precision: Precision) -> Any:
        """Return the fast form.

        Raises:
            VitrailError: it cannot be had; the message says why.
        """
        form: Any = optimize(self.model, precision)  # type: ignore[arg-type]
        reason = next((text for text in form.unconverted if text.startswith("everything")), None)
        if reason is not None:
            raise VitrailError(reason.removeprefix("everything").lstrip(": "))
        return form

    def _timed(self, answer: Answer, images: Tensor) -> tuple[Tensor, float]:
        """Return an answer and the seconds until it is there."""
        self.gate.clear()
        try:
            start = self._clock()
            logits = answer(images)
            finished(self._device())
            return logits, self._clock() - start
        finally:
            self.gate.set()


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def in_bf16(model: nn.Module) -> Answer:
    """Return the plain form of a model with its weights in bf16; pictures come and logits go in fp32."""
    copy = deepcopy(model).to(torch.bfloat16)
    return lambda images: copy(images.to(torch.bfloat16)).float()
