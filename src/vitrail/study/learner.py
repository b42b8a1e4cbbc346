"""A short training for studies: AdamW with decay groups, warm-up and cosine, no files."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitrail.study.images import StudyImages, augment
from vitrail.tasks.inference import evaluating
from vitrail.training.optimizer import make_optimizer
from vitrail.training.param_groups import parameter_groups
from vitrail.training.schedule import Schedule

CLIP = 1.0


@dataclass(frozen=True)
class LearnSettings:
    """Settings of a short training.

    Args:
        steps: updates.
        batch: images in an update.
        lr: peak learning rate.
        warmup: share of the steps with a rising rate.
        weight_decay: decay of matrices.
        augmented: whether images are turned, scaled and shifted.
        clip: largest norm of the gradient.
    """

    steps: int = 200
    batch: int = 32
    lr: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    augmented: bool = False
    clip: float = CLIP


@dataclass(frozen=True)
class Learned:
    """Result of a short training.

    Args:
        accuracy: share of test images that are classified right.
        loss: cross entropy of the last tenth of the steps; infinite if the training diverged.
        losses: of each step.
    """

    accuracy: float
    loss: float
    losses: list[float]

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite."""
        return not isfinite(self.loss)


def learn(model: nn.Module, data: StudyImages, settings: LearnSettings, seed: int) -> Learned:
    """Train a classifier and test it; batches are a function of the seed, so conditions with one seed see the same."""
    draw = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(data.train), (settings.batch,), generator=draw)
        images = data.train[chosen]
        return (augment(images, draw) if settings.augmented else images), data.train_labels[chosen]

    losses = descend(model, lambda: cross_entropy(*_scored(model, batch())), settings)
    tail = losses[-max(1, len(losses) // 10) :]
    loss = sum(tail) / len(tail) if len(losses) == settings.steps else inf
    return Learned(accuracy(model, data.test, data.test_labels), loss, losses)


def _scored(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return model(batch[0]), batch[1]


def descend(model: Any, loss_of_batch: Callable[[], Tensor], settings: LearnSettings) -> list[float]:
    """Minimise a loss in place and return it by step; a loss that is not finite ends the training."""
    groups = parameter_groups(model, settings.weight_decay, layer_decay=1.0)
    optimizer = make_optimizer("adamw", groups)
    schedule = Schedule(settings.lr, warmup=settings.warmup)
    model.train()
    losses: list[float] = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate((step + 0.5) / settings.steps)
        loss = loss_of_batch()
        if not isfinite(value := float(loss.detach())):
            break
        losses.append(value)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    model.eval()
    return losses


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor, batch: int = 256) -> Tensor:
    """Return logits of images in evaluation mode."""
    with evaluating(model):
        return torch.cat([model(part) for part in images.split(batch)])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a model classifies right."""
    return float((predicted(model, images).argmax(1) == labels).float().mean())
