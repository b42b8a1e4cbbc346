"""The objective of a training run: cross-entropy with the labels, alone or with the loss of a teacher (DeiT)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, kl_div

from vitrail.errors import VitrailError
from vitrail.preprocess import Preprocess
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.classify.options import TrainOptions
from vitrail.weights.folder import is_model_folder, load_model

Objective = Callable[[tuple[Tensor, Tensor], Tensor, Tensor], Tensor]
"""`(class logits and distillation logits, images, targets) -> loss`."""


class Supervised:
    """Cross-entropy with the labels; with two heads, the mean of their losses.

    Args:
        smoothing: label smoothing.
        class_weights: factor of each class, `(K,)`.
    """

    def __init__(self, smoothing: float, class_weights: Tensor | None = None):
        self.smoothing, self.class_weights = smoothing, class_weights

    def __call__(self, outputs: tuple[Tensor, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        logits, other = outputs
        loss = self._loss(logits, targets)
        return loss if other is logits else (loss + self._loss(other, targets)) / 2

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return classification_loss(logits, targets, self.smoothing, self.class_weights)


class Distilled:
    """Weighted sum of the loss of the labels and the loss of a teacher.

    hard: (1 - a) CE(s, y) + a CE(s', argmax t);  soft: (1 - a) CE(s, y) + a T^2 KL(softmax(t / T) || softmax(s' / T))

    "Training data-efficient image transformers & distillation through attention", section 4, equations 2 and 3.

    Args:
        smoothing: label smoothing of the labels' loss.
        teacher: maps the student's input images to the teacher's logits.
        soft: True for soft distillation (distribution), False for hard (argmax).
        alpha: weight a of the teacher's loss.
        temperature: T of soft distillation.
    """

    def __init__(
        self, smoothing: float, teacher: Callable[[Tensor], Tensor], soft: bool, alpha: float, temperature: float
    ):
        self.smoothing, self.teacher, self.alpha, self.temperature = smoothing, teacher, alpha, temperature
        self.imitation = self._soft if soft else _hard

    def __call__(self, outputs: tuple[Tensor, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        logits, imitation = outputs
        own = classification_loss(logits, targets, self.smoothing)
        return (1 - self.alpha) * own + self.alpha * self.imitation(imitation.float(), self.teacher(images).float())

    def _soft(self, logits: Tensor, wanted: Tensor) -> Tensor:
        t = self.temperature
        student, teacher = (logits / t).log_softmax(1), (wanted / t).log_softmax(1)
        return kl_div(student, teacher, reduction="batchmean", log_target=True) * t**2


def _hard(logits: Tensor, wanted: Tensor) -> Tensor:
    return cross_entropy(logits, wanted.argmax(1))


class Teacher:
    """Teacher model, applied to images that are preprocessed for the student.

    The student's normalisation is undone and the teacher's applied; images are resized bilinearly if the sizes differ.

    Args:
        model: the teacher.
        theirs: preprocessing of the teacher.
        ours: preprocessing of the student.
    """

    def __init__(self, model: nn.Module, theirs: Preprocess, ours: Preprocess):
        if theirs.channels != ours.channels:
            raise VitrailError(
                f"The teacher sees {theirs.channels} channels, the student {ours.channels}.\n"
                "Choose a teacher of the same images."
            )
        self.model = model.eval().requires_grad_(False)
        self.size = None if theirs.size == ours.size else theirs.size
        device = next(model.parameters()).device
        mean, std = torch.tensor(ours.mean, device=device), torch.tensor(ours.std, device=device)
        to_mean, to_std = torch.tensor(theirs.mean, device=device), torch.tensor(theirs.std, device=device)
        self.scale = (std / to_std)[:, None, None]
        self.shift = ((mean - to_mean) / to_std)[:, None, None]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the teacher's logits."""
        images = images * self.scale + self.shift
        if self.size is not None:
            images = interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return self.model(images)


def build_objective(options: TrainOptions, teacher: Teacher | None, class_weights: Tensor | None = None) -> Objective:
    """Return the objective of a run.

    Args:
        options: smoothing and kind of distillation.
        teacher: the teacher, if there is one.
        class_weights: factor of each class; not with a teacher.

    Raises:
        VitrailError: class weights are combined with a teacher.
    """
    if teacher is None:
        return Supervised(options.smoothing, class_weights)
    if class_weights is not None:
        raise VitrailError("balance=weights and a teacher are not combined. Take balance=sampling with --teacher.")
    if options.distill_alpha == 0:
        return Supervised(options.smoothing)
    return Distilled(
        options.smoothing, teacher, options.distill == "soft", options.distill_alpha, options.distill_temperature
    )


def load_teacher(options: TrainOptions, device: torch.device, preprocess: Preprocess, classes: int) -> Teacher | None:
    """Load the teacher of a run, or return None if there is none.

    Args:
        options: its folder, and the weight of its logits.
        device: device of the teacher.
        preprocess: preprocessing of the student's images.
        classes: number of classes of the data.

    Raises:
        VitrailError: the teacher is no model folder, or has other classes or channels.
    """
    if options.teacher is None:
        return None
    if not is_model_folder(options.teacher):
        raise VitrailError(
            f"The teacher {options.teacher} is not a model folder.\n"
            "Train one (weights/best of its run folder), or make one with vitrail convert."
        )
    model: Any = load_model(Path(options.teacher), device)
    if model.config.num_classes != classes and options.distill_alpha > 0:
        raise VitrailError(
            f"The teacher knows {model.config.num_classes} classes, the data has {classes}. They must be the same.\n"
            "With --distill-alpha 0 its layers alone are imitated, of any classes."
        )
    return Teacher(model, model.preprocess, preprocess)
