"""Naming what is in pictures: one call for a file, a folder or a million files."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError
from vitrail.lab.form import Answerer, Precision, Told
from vitrail.lab.image_sources import Picture, find_pictures
from vitrail.lab.model_loading import ModelSource, class_names, find_model, inference_mode_for, read_names
from vitrail.lab.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.native.image_resize import best_pixels
from vitrail.preprocess import Preprocess
from vitrail.tasks.classification import Classification, check_finite, classify

REDUCED = 3
"""A JPEG may be decoded at a smaller scale that leaves so many times the pixels that the model's resize asks for.

Where it is, the logits of the real ViT-Ti move by 1 to 3 % of their range in the median, two to three times as far as
bf16 moves them, and of 100 answers 1 to 11 change (`benchmarks/draft.py`; bf16: 0 to 3): so it must be asked for. With
1.5 they move by 4.4 %, and every seventh answer is another.
"""

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
    precision: Precision = "fp32",
    optimize: bool = True,
    draft: bool = False,
    told: Told = lambda form: None,
) -> list[Classification]:
    """Name what is in pictures.

    A picture that cannot be read gives a result with its `error`; the others go on. Answers do not depend on `batch`.
    Where there are enough pictures, the first few are also asked of the model's fast form (`vitrail.optimize`), which
    answers all of them where it is faster and agrees; each result's `form` says which one did.

    Args:
        model: a model, a model folder or a run folder.
        pictures: a path, a folder, a pattern such as `photos/*.jpg`, a PIL picture, an array `(Y, X, C)`, a tensor
            `(C, Y, X)` or `(B, C, Y, X)`, or many of them in a list.
        top: how many classes each result keeps.
        batch: pictures that pass the model together.
        labels: class names, where the model has none or others are wanted.
        device: `auto`, `cpu`, `cuda`, ...
        precision: what to compute in. `auto` is bf16 in the fast form where that is faster here, and else fp32: a clock
            decides between the two. `int8` is taken where it is faster and agrees, and else `auto` is.
        optimize: whether the fast form may answer; else the model does as it is.
        draft: decode large JPEGs at a smaller scale, see `REDUCED`: sooner, but some answers change. Without, every
            picture is prepared exactly as the model's published protocol says.
        told: hears which form answers, and why.

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
    ready, found = find_model(model, device=device), find_pictures(pictures)
    answers = predictions(
        ready,
        found,
        top=top,
        batch=batch,
        labels=labels,
        precision=precision,
        optimize=optimize,
        draft=draft,
        told=told,
    )
    return list(answers)


def predictions(
    model: Any,
    pictures: Iterable[Picture],
    *,
    top: int = 5,
    batch: int = 32,
    labels: Labels | None = None,
    precision: Precision = "fp32",
    optimize: bool = True,
    draft: bool = False,
    told: Told = lambda form: None,
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
        precision: see `predict`, as for the rest.
        optimize: whether the fast form may answer.
        draft: decode large JPEGs at a smaller scale.
        told: hears which form answers.
    """
    if top < 1 or batch < 1:
        raise VitrailError(f"top is {top} and batch is {batch}; both must be at least 1.")
    count = len(pictures) if isinstance(pictures, Sized) else None
    prepare = EvalTransform(model.preprocess, best_pixels(count))
    least = reduced_side(model.preprocess) if draft else None
    answerer = Answerer(model, count, precision=precision, fast=optimize, told=told)
    given = read_names(labels) if isinstance(labels, str | PathLike) else labels
    names: tuple[str, ...] = ()

    def read(picture: Picture) -> Read:
        try:
            image = picture.read() if least is None or picture.draft is None else picture.draft(least)
            return picture, prepare.picture(image if image.mode == prepare.mode else image.convert(prepare.mode))
        except DataError as error:
            return picture, error

    for group in batched(
        prefetch_map(read, pictures, window=2 * batch, gate=answerer.gate), balanced_batch_size(batch, count)
    ):
        logits = _ask(model, answerer, prepare, group)
        if not names and len(logits):
            names = class_names(model, logits.shape[1], given)
        yield from _answer(group, logits, names, top, str(answerer.form or ""))


def reduced_side(preprocess: Preprocess) -> int:
    """Return the least side that a JPEG may be decoded at for a model; see `REDUCED`."""
    return REDUCED * preprocess.resize


def _ask(model: Any, answerer: Answerer, prepare: EvalTransform, group: list[Read]) -> Tensor:
    """Return the logits of the pictures that were read, `(b, K)`; `(0, 0)` where none was."""
    good = [(picture.name, pixels) for picture, pixels in group if isinstance(pixels, Tensor)]
    if not good:
        return torch.empty(0, 0)
    names, pixels = zip(*good, strict=True)
    with inference_mode_for(model) as device:
        logits = answerer(prepare.batch(torch.stack(pixels).to(device)))
    check_finite(logits, names)
    return logits


def _answer(group: list[Read], logits: Tensor, labels: Sequence[str], top: int, form: str) -> Iterator[Classification]:
    """Yield the results of a batch in its order: an answer, or why there is none."""
    good = [picture.name for picture, pixels in group if isinstance(pixels, Tensor)]
    answers = iter(classify(logits, good, labels, top) if good else ())
    for picture, pixels in group:
        if isinstance(pixels, Tensor):
            yield replace(next(answers), picture=picture.held, form=form)
        else:
            reason = pixels.reason if isinstance(pixels, ImageDecodeError) else str(pixels)
            yield Classification(picture.name, error=reason)
