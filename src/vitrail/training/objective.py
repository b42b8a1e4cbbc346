"""What a step makes smaller: the task's loss, alone or with a teacher's.

DDP and FSDP wrap `TrainingWrapper`, which the loop calls; an objective turns its two outputs and the targets into
one loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, kl_div

from vitrail.errors import VitrailError
from vitrail.preprocess import Preprocess
from vitrail.tasks.classify import classification_loss

Objective = Callable[[tuple[Tensor, Tensor], Tensor, Tensor], Tensor]
"""`(outputs of the student, images, targets) -> loss`."""


class TrainingWrapper(nn.Module):
    """A classifier in training: its logits for the labels, and its logits for a teacher.

    A model with a distillation token has a head with `both`; its two answers are trained apart and averaged in use. Any
    other model gives one answer to both.

    Args:
        model: a classifier.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.answer = self._two if hasattr(model.head, "both") else self._one

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and distillation logits while training, the model's own answer twice otherwise."""
        return self.answer(images) if self.training else self._one(images)

    def _one(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        return logits, logits

    def _two(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.head.both(self.model.features(images))  # pyright: ignore


class Supervised:
    """Cross-entropy with the labels; of two answers, the mean of their losses.

    Args:
        smoothing: label smoothing.
    """

    def __init__(self, smoothing: float):
        self.smoothing = smoothing

    def __call__(self, outputs: tuple[Tensor, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        logits, other = outputs
        loss = classification_loss(logits, targets, self.smoothing)
        return loss if other is logits else (loss + classification_loss(other, targets, self.smoothing)) / 2


class Distilled:
    """The labels' loss and a teacher's, weighted.

    hard: (1 - a) CE(s, y) + a CE(s', argmax t);  soft: (1 - a) CE(s, y) + a T^2 KL(softmax(t / T) || softmax(s' / T))

    "Training data-efficient image transformers & distillation through attention", section 4, equations 2 and 3.

    Args:
        smoothing: label smoothing of the labels' loss.
        teacher: pictures as the student gets them -> the teacher's logits.
        soft: True for the distribution, False for the decision.
        alpha: share a of the teacher's loss.
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
    """A trained model that answers pictures prepared for the student.

    The student's normalisation is undone and the teacher's applied; another size is reached by bilinear interpolation.

    Args:
        model: the teacher.
        theirs: how the teacher's pictures are prepared.
        ours: how the student's are.
    """

    def __init__(self, model: nn.Module, theirs: Preprocess, ours: Preprocess):
        if theirs.channels != ours.channels:
            raise VitrailError(
                f"The teacher sees {theirs.channels} channels, the student {ours.channels}.\n"
                "Choose a teacher of the same pictures."
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
