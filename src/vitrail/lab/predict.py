"""Naming what is in pictures: one call for a file, a folder or a million files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from vitrail.data.picture import ImageDecodeError
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError
from vitrail.lab.ahead import ahead, batched
from vitrail.lab.inference import ModelSource, asking, class_names, find_model, read_names
from vitrail.lab.pictures import Picture, find_pictures
from vitrail.tasks.classification import Classification, check_finite, classify

Labels = Sequence[str] | str | PathLike[str]
"""Class names in the order of the logits, or a text file with one a line."""

Read = tuple[Picture, Tensor | DataError]
"""A picture with its pixels `(C, Y, X)` of uint8, or with why there are none."""


def predict(
    model: ModelSource,
    pictures: Any,
    *,
    top: int = 5,
    batch: int = 32,
    labels: Labels | None = None,
    device: str = "auto",
) -> list[Classification]:
    """Name what is in pictures.

    A picture that cannot be read gives a result with its `error`; the others go on. Answers do not depend on `batch`.

    Args:
        model: a model, a model folder or a run folder.
        pictures: a path, a folder, a pattern such as `photos/*.jpg`, a PIL picture, an array `(Y, X, C)`, a tensor
            `(C, Y, X)` or `(B, C, Y, X)`, or many of them in a list.
        top: how many classes each result keeps.
        batch: pictures that pass the model together.
        labels: class names, where the model has none or others are wanted.
        device: `auto`, `cpu`, `cuda`, ...

    Returns:
        One result a picture, in their order.

    Raises:
        VitrailError: there is no such model or picture.

    Example:
        >>> import numpy, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1)
        >>> [answer] = predict(model, numpy.zeros((40, 50, 3), "uint8"), labels=["cat", "dog", "fox"], top=2)
        >>> answer.path, len(answer.top())
        ('picture 0', 2)
    """
    ready = find_model(model, device=device)
    return list(predictions(ready, find_pictures(pictures), top=top, batch=batch, labels=labels))


def predictions(
    model: Any,
    pictures: Iterable[Picture],
    *,
    top: int = 5,
    batch: int = 32,
    labels: Labels | None = None,
) -> Iterator[Classification]:
    """Yield the results one by one, in the order of the pictures.

    Pictures are read and decoded in threads while the model computes; no more than two batches are in memory at a time,
    however many there are.

    Args:
        model: a model on its device.
        pictures: as `find_pictures` lists them.
        top: how many classes each result keeps.
        batch: pictures that pass the model together.
        labels: class names.
    """
    if top < 1 or batch < 1:
        raise VitrailError(f"top is {top} and batch is {batch}; both must be at least 1.")
    prepare = EvalTransform(model.preprocess)
    given = read_names(labels) if isinstance(labels, str | PathLike) else labels
    names: tuple[str, ...] = ()

    def read(picture: Picture) -> Read:
        try:
            image = picture.read()
            return picture, prepare.picture(image if image.mode == prepare.mode else image.convert(prepare.mode))
        except DataError as error:
            return picture, error

    for group in batched(ahead(read, pictures, window=2 * batch), batch):
        logits = _ask(model, prepare, group)
        if not names and len(logits):
            names = class_names(model, logits.shape[1], given)
        yield from _answer(group, logits, names, top)


def _ask(model: Any, prepare: EvalTransform, group: list[Read]) -> Tensor:
    """Return the logits of the pictures that were read, `(b, K)`; `(0, 0)` where none was."""
    good = [(picture.name, pixels) for picture, pixels in group if isinstance(pixels, Tensor)]
    if not good:
        return torch.empty(0, 0)
    names, pixels = zip(*good, strict=True)
    with asking(model) as device:
        logits = model(prepare.batch(torch.stack(pixels).to(device)))
    check_finite(logits, names)
    return logits


def _answer(group: list[Read], logits: Tensor, labels: Sequence[str], top: int) -> Iterator[Classification]:
    """Yield the results of a batch in its order: an answer, or why there is none."""
    good = [picture.name for picture, pixels in group if isinstance(pixels, Tensor)]
    answers = iter(classify(logits, good, labels, top) if good else ())
    for picture, pixels in group:
        if isinstance(pixels, Tensor):
            yield replace(next(answers), picture=picture.held)
        else:
            reason = pixels.reason if isinstance(pixels, ImageDecodeError) else str(pixels)
            yield Classification(picture.name, error=reason)
