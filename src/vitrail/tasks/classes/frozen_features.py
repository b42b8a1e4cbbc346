"""Training on features that are computed once: the backbone is frozen, and only the last layer of the head learns.

A frozen backbone in evaluation mode is a function, so an image that is not varied has the same vector in every epoch.
The vectors are those of `vitrail probe`, in one cache.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from vitrail.data.augment import Augment
from vitrail.data.loading import Batch, Loader
from vitrail.parts.heads import LinearHead
from vitrail.parts.model import Model
from vitrail.tasks.classes.feature_cache import cached_features, feature_file, features_digest
from vitrail.tasks.features import ImageFeatures
from vitrail.tasks.task import Share

BATCH = 64
"""Images in a batch whose vectors are computed."""
_TIMED = 8


def frozen_features(model: nn.Module, options: Any, augment: Augment, share: Share) -> bool:
    """Return whether a run may train on cached features, with the answer that it has without them.

    Args:
        model: the model of the run, parts of it frozen.
        options: config of the run.
        augment: augmentation of its training images.
        share: processes and treatment of unreadable images.
    """
    once = options.cache_features and not varies(augment) and share.size == 1 and share.bad == "fail"
    skipping = getattr(options, "layer_drop", 0.0) or getattr(options, "compile", False)
    return once and not skipping and only_last_layer_learns(model)


def only_last_layer_learns(model: nn.Module) -> bool:
    """Return whether the head's linear layer is all that learns, on a vector that no part of the head varies.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, num_classes=2)
        >>> only_last_layer_learns(model), only_last_layer_learns(model.requires_grad_(False))
        (False, False)
        >>> _ = model.head.requires_grad_(True)
        >>> only_last_layer_learns(model)
        True
    """
    head: Any = getattr(model, "head", None)
    if type(head) is not LinearHead or type(head.linear) is not nn.Linear:
        return False
    if any(isinstance(part, nn.Dropout | BatchNorm) for part in head.modules()):
        return False
    learning = {parameter for parameter in model.parameters() if parameter.requires_grad}
    return learning == set(head.linear.parameters())


def varies(augment: Augment) -> bool:
    """Return whether an augmentation gives an image other pixels in each epoch.

    Example:
        >>> from vitrail.data.augment import AUGMENTS
        >>> varies(AUGMENTS["photo"]), varies(AUGMENTS["none"])
        (True, False)
    """
    return augment.crop != "center" or augment.policy != "none" or max(augment.flip, augment.jitter, augment.erase) > 0


def logits_of(model: Model, images: Tensor) -> Tensor:
    """Return the logits of images `(B, C, Y, X)`, or of vectors `(B, D)` in place of them."""
    head: Any = model.head
    return head.linear(images) if images.ndim == 2 else model(images)


class FeatureLoader(Loader):
    """Batches of a loader with vectors `(B, D)` in place of images; they are computed at the first use.

    Args:
        loader: loader in one process that does not vary its images.
        model: the model; its head is a `LinearHead`.
        precision: compute precision of the forward pass, `fp32` or `bf16`.

    Attributes:
        sample_seconds: seconds of an image in the whole model; 0 until it is measured.
    """

    def __init__(self, loader: Loader, model: Model, precision: str):
        self.dataset, self.order, self.device = loader.dataset, loader.order, loader.device
        self.skipped = loader.skipped
        self.reader = ImageFeatures(model, precision=precision)
        self.sample_seconds = 0.0
        self._vectors: Tensor | None = None

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches from `start_step` on: samples and labels of the loader, with their vectors."""
        vectors = self.vectors()
        for numbers in self.order.batches(epoch, start_step):
            index = torch.from_numpy(numbers % len(self.dataset))
            yield Batch(vectors[index].to(self.device), self.dataset.labels[index].to(self.device), index)

    def vectors(self) -> Tensor:
        """Return the vectors of all images `(n, D)`, from the cache if these weights have seen this data."""
        if self._vectors is None:
            digest, start = features_digest(self.reader), time.monotonic()
            known = feature_file(digest, self.dataset).exists()
            self._vectors = cached_features(self.reader, digest, self.dataset, BATCH)
            seconds = (time.monotonic() - start) / len(self.dataset)
            self.sample_seconds = self._time(min(_TIMED, len(self.dataset))) if known else seconds
        return self._vectors

    def rehearse(self) -> float:
        """Fill the table from a few images unless it is in the cache; return the seconds that all of them take."""
        if feature_file(features_digest(self.reader), self.dataset).exists():
            self.vectors()
            return 0.0
        count = min(BATCH, len(self.dataset))
        first = self._compute(count)  # warms up
        self._vectors, self.sample_seconds = first[torch.arange(len(self.dataset)) % count], self._time(count)
        return self.sample_seconds * len(self.dataset)

    def _compute(self, count: int) -> Tensor:
        found = self.reader.vectors([self.reader.sample(self.dataset, number) for number in range(count)])
        return found.clone()  # of an inference tensor, which no gradient may pass

    def _time(self, count: int) -> float:
        """Return the seconds of an image."""
        start = time.monotonic()
        self._compute(count)
        return (time.monotonic() - start) / count
