"""Automatic selection between the plain model and `vitrail.optimize`, if that is faster here and agrees."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event
from time import perf_counter, thread_time
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.fused.ab_trial import TrialArm, finished, try_out
from vitrail.fused.answers import LOGITS, Answer, Logits
from vitrail.fused.encoder import is_encoder
from vitrail.fused.measured_speed import remembered, trial_key
from vitrail.fused.optimize import DTYPES, PRECISIONS, Precision, optimize, unbuilt
from vitrail.fused.plan import usual_precision
from vitrail.parts.backbone import Classifier
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.detection.detector import Detector
from vitrail.parts.exported_file import exported_file
from vitrail.parts.sequence_model import SequenceModel, TiedModel

FEW = 4
"""Number of images up to which a job finishes before an optimized model is built."""

# Seconds to compile a native library, once per machine: 5 to 9 on one core, as measured.
_COMPILING = 7.0
# Seconds of saved time that are negligible; they also cover module construction in models with few weights.
_NOTICED = 0.25
# Cost of `optimize` relative to one transposed copy of all weights: 5 to 30, as measured.
_LAYING_OUT = 15.0

_FEW = "an optimized model does not pay off for so few {}"


@dataclass(frozen=True)
class SelectedModel:
    """The selected implementation of a model.

    Args:
        name: `plain` or `fast`.
        precision: compute precision, `fp32`, `bf16` or `int8`.
        answer: function from images `(B, C, Y, X)` to fp32 logits `(B, K)`.
        reason: reason why it is the plain model, or not in the requested precision.
        speedup: speedup of the optimized model over the plain one.
        checked: number of images on which speed and agreement were measured.
        model: model that computes the answers, None for the plain one in bf16.
        unit: plural of an input.
    """

    name: Literal["plain", "fast"]
    precision: str
    answer: Answer
    reason: str = ""
    speedup: float | None = None
    checked: int = 0
    model: nn.Module | None = None
    unit: str = "images"

    def __str__(self) -> str:
        if self.speedup is None:
            return f"{'plain' if self.name == 'plain' else 'optimized'} model in {self.precision}: {self.reason}"
        seen = f"on the first {self.checked} {self.unit}" if self.checked > 1 else f"on the first {self.unit[:-1]}"
        because = f" ({self.reason})" if self.reason else ""
        return f"optimized model: {self.speedup:.1f}x in {self.precision} {seen}{because}"


Clock = Callable[[], float]
"""Returns the time in seconds."""

Notify = Callable[[SelectedModel], None]
"""Callback, called once with the selected implementation."""


class InferenceRunner:
    """Runs the batches of a job with the implementation selected on the first batch.

    The model must be in evaluation mode, and gradients off; see `inference_mode_for`.

    Args:
        model: the plain model.
        count: number of images in the job; None if unknown, which counts as many.
        precision: compute precision. `auto` is bf16 in the optimized model if the hardware supports it and that is
            faster, else fp32. `int8` is used if it is faster and agrees, for any number of images; else `auto`.
        fast: whether the optimized model may be used.
        notify: called with the selected implementation.
        clock: returns the time in seconds. By default the CPU time of this thread if it computes alone, which other
            work on the machine does not change, else the wall time; measured speedups are then remembered, and the
            median of the last ones decides.
        kind: kind of the answers.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1).eval()
        >>> answerer = InferenceRunner(model, count=1, notify=print)
        >>> answerer(torch.zeros(1, 3, 32, 32)).shape
        plain model in fp32: an optimized model does not pay off for so few images
        torch.Size([1, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        count: int | None,
        *,
        precision: Precision = "fp32",
        fast: bool = True,
        notify: Notify = lambda form: None,
        clock: Clock | None = None,
        kind: Logits = LOGITS,
    ):
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        check_own_precision(model, precision)
        self.model, self.count, self.precision, self.fast = model, count, precision, fast
        self.kind = kind
        self.form: SelectedModel | None = None
        self._notify = notify
        self._clock = (thread_time if _alone(model) else perf_counter) if clock is None else clock
        self._remembers = clock is None
        self.gate = Event()
        """Cleared during timing, so that no prefetch starts then; see `data.prefetch`."""
        self.gate.set()

    def __call__(self, images: Any) -> Any:
        """Return the logits."""
        if self.form is not None:
            return self.form.answer(images)
        self.form, first = self._choose(images)
        self._notify(self.form)
        if len(first) == len(images):
            return first
        # Logits from the trial are reused: in a small job they are a good part of it.
        return self.kind.join([first, self.form.answer(images[len(first) :])])

    def _choose(self, images: Any) -> tuple[SelectedModel, Any]:
        """Return the selected implementation, and its logits of the first images."""
        plain = self._plain()
        refusal = self._refusal()
        if refusal:
            return replace(plain, reason=refusal), plain.answer(images)
        usual = self._side(plain.answer, images)
        truth = usual if plain.precision == "fp32" else self._side(self.kind.of(self.model), images)
        usual.ask(0)
        reasons: list[str] = []
        for precision in self._wanted():
            try:
                self._weigh(usual, precision)
                form, answers = self._try(precision, usual, truth, images)
            except VitrailError as reason:
                reasons.append(str(reason).replace("images", self.kind.unit))
            else:
                return replace(form, reason="; ".join(reasons)), answers
        return replace(plain, reason="; ".join(reasons)), usual.answers

    def _try(self, precision: Precision, plain: TrialArm, truth: TrialArm, images: Any) -> tuple[SelectedModel, Any]:
        """Return the optimized model with its logits of the batch.

        Raises:
            VitrailError: it is rejected; the message has the reason.
        """
        form = self._build(precision)
        fast = self._side(self.kind.of(form), images)
        verdict = try_out(fast, plain, truth, precision)
        if self._remembers and verdict.agreement.holds:
            kept = remembered(trial_key(self.model, images, precision), verdict.speedup)
            verdict = replace(verdict, speedup=kept)
        seen, answers = len(fast.answers), fast.answers
        if verdict.reason is None and seen < len(images):
            # Check the whole batch too, as used from now on: another batch size may select other kernels.
            answers = fast.answer(images)
            agreement = self.kind.compare(answers[:seen], truth.answers[:seen], precision)
            verdict = replace(verdict, agreement=agreement)
        if verdict.reason is not None:
            kept: Any = "" if verdict.faster else next(iter(form.unconverted), "")
            raise VitrailError(verdict.reason + (f"; it keeps {kept}" if kept else ""))
        unit = self.kind.unit
        return SelectedModel("fast", precision, fast.answer, "", verdict.speedup, seen, form, unit), answers

    def _plain(self) -> SelectedModel:
        own = getattr(self.model, "precision", None)
        if own is not None:  # an optimized model
            return SelectedModel("plain", own, self.kind.of(self.model), model=self.model)
        weights = next((value.dtype for value in self.model.parameters()), torch.float32)
        if self.precision == "bf16" and weights != torch.bfloat16:
            return SelectedModel("plain", "bf16", self.kind.in_bf16(self.model))
        name = _NAMES.get(weights, str(weights).removeprefix("torch."))
        return SelectedModel("plain", name, self.kind.of(self.model), model=self.model)

    def _wanted(self) -> tuple[Precision, ...]:
        """Return the precisions to try; the first that is faster and agrees is selected."""
        usual: Precision = usual_precision(self._device())
        return {"auto": (usual,), "int8": ("int8", usual)}.get(self.precision, (self.precision,))

    def _refusal(self) -> str | None:
        """Return the reason to skip the trial, or None."""
        if not self.fast:
            return "as asked"
        if exported_file(self.model):
            return "it is an exported file"
        if hasattr(self.model, "unconverted"):
            return "the model was given as it is"
        if not _may_have_other(self.model):
            return f"{type(self.model).__name__} has no other"
        if any(value.device.type not in ("cpu", "cuda") or value.dtype != torch.float32 for value in self._weights()):
            return "the fast one is for fp32 weights on a CPU or a CUDA device"
        if any(each._forward_hooks or each._forward_pre_hooks for each in self.model.modules()):
            return "the model has forward hooks, which the optimized model would not call"
        few = self.count is not None and self.count <= FEW
        return _FEW.format(self.kind.unit) if few and self.precision != "int8" else None

    def _device(self) -> torch.device:
        return next((value.device for value in self.model.parameters()), torch.device("cpu"))

    def _weights(self) -> list[Tensor]:
        return [value.detach() for value in self.model.parameters()]

    def _side(self, answer: Answer, images: Any) -> TrialArm:
        """Return an arm of the trial: one image per turn, on a GPU the whole batch, since few images do not fill it."""
        if self._device().type != "cuda":
            return TrialArm(answer, images, self.kind.turn(images), self._timed, self.kind)
        answer(images)  # warm-up: compiles kernels and loads libraries
        return TrialArm(answer, images, len(images), self._timed, self.kind)

    def _weigh(self, usual: TrialArm, precision: Precision) -> None:
        """Reject an optimized model if the job is too short, from the time of one turn and of packing one weight.

        It pays off if the time saved at a speedup of 2, minus the plain model's turn in the trial, exceeds the time to
        build it. Not checked for int8, which is an explicit request.

        Raises:
            VitrailError: building takes longer than it saves.
        """
        if precision == "int8" or self.count is None:
            return
        saved = usual.least * (self.count / usual.size / 2 - 1) - _NOTICED
        if saved <= 0 or saved <= self._building(precision):
            raise VitrailError(_FEW.format(self.kind.unit))

    def _building(self, precision: Precision) -> float:
        """Estimate the seconds of `optimize`."""
        tables = {id(module.weight) for module in self.model.modules() if isinstance(module, nn.Embedding)}
        weights = [value.detach() for value in self.model.parameters() if id(value) not in tables]  # these stay
        largest = max((value.flatten(1) for value in weights if value.ndim > 1), key=Tensor.numel)

        def lay_out(images: Tensor) -> Tensor:
            return images.to(DTYPES[precision]).t().contiguous()

        lay_out(largest)  # warm-up: page faults of its memory
        each = self._timed(lay_out, largest)[1] / largest.numel()
        compiling = _COMPILING * -(-unbuilt(self.model, precision) // (os.cpu_count() or 1))
        return _LAYING_OUT * each * sum(map(Tensor.numel, weights)) + compiling

    def _build(self, precision: Precision) -> Any:
        """Return the optimized model.

        Raises:
            VitrailError: it is unavailable; the message has the reason.
        """
        form: Any = optimize(self.model, precision)  # type: ignore[arg-type]
        reason = next((text for text in form.unconverted if text.startswith("everything")), None)
        if reason is not None:
            raise VitrailError(reason.removeprefix("everything").lstrip(": "))
        return form

    def _timed(self, answer: Answer, images: Any) -> tuple[Any, float]:
        """Return the logits and the elapsed seconds."""
        self.gate.clear()
        try:
            start = self._clock()
            logits = answer(images)
            finished(self._device())
            return logits, self._clock() - start
        finally:
            self.gate.set()


def check_own_precision(model: object, precision: str) -> None:
    """Refuse a precision other than that of a program or an optimized model.

    Raises:
        VitrailError: it computes in another precision.
    """
    runtime = getattr(model, "runtime", None)
    own = "fp32" if runtime else getattr(model, "precision", None)
    if own is None or precision in (own, "auto") or (precision == "fp32" and not runtime):
        return  # fp32 is the default of a job, not a request
    what = f"A program of {runtime}" if runtime else "This optimized model"
    raise VitrailError(f"{what} computes in {own}, got --precision {precision}. Leave it out, or use the model folder.")


def _alone(model: nn.Module) -> bool:
    """Return whether a model computes in the calling thread alone."""
    first = next(model.parameters(), None)
    return torch.get_num_threads() == 1 and (first is None or first.device.type == "cpu")


def _may_have_other(model: nn.Module) -> bool:
    """Return whether models of this kind have an optimized form."""
    if type(model) in (SequenceModel, TiedModel):
        return is_encoder(model)  # pyright: ignore[reportArgumentType]
    return type(model) in (Classifier, Segmenter, Detector)


_NAMES = {dtype: name for name, dtype in DTYPES.items()}
