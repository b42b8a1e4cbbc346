"""How good is a model, and where is it wrong? One pass over a split."""

from collections.abc import Callable, Iterator
from os import PathLike
from shlex import quote
from threading import Event
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.data.dataset import PictureSet
from vitrail.data.datasets import open_dataset
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError, unknown
from vitrail.lab.calibration import calibrate
from vitrail.lab.evaluation import Evaluation
from vitrail.lab.examples import ExampleCollector
from vitrail.lab.form import Answerer, Form, Precision, Told
from vitrail.lab.metrics import Scores, class_figures, count_confusions, macro_f1, score, top
from vitrail.lab.model_loading import ModelSource, class_names, find_model, inference_mode_for
from vitrail.lab.predict import Labels
from vitrail.lab.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.native.image_resize import best_pixels
from vitrail.tasks.classification import check_finite

Progress = Callable[[int, int], None]
"""Called after each batch with the pictures done and the pictures there are."""


def evaluate(
    model: ModelSource,
    data: PictureSet | str | PathLike[str],
    *,
    split: str = "test",
    batch: int = 64,
    labels: Labels | None = None,
    device: str = "auto",
    worst: int = 24,
    bad: Literal["fail", "skip"] = "fail",
    progress: Progress | None = None,
    precision: Precision = "fp32",
    optimize: bool = True,
    told: Told = lambda form: None,
) -> Evaluation:
    """Measure a model on a split: each picture once, whatever the batch, prepared as its published protocol says.

    In fp32 unless something else is asked for, as a training measures its own result: in bf16 single pictures get
    another answer, and figures that differ by them should not depend on the machine. In fp32 the fast form gives the
    plain one's answers to 1e-4, which is checked on the first of them, and is still faster.

    Args:
        model: a model, a model folder or a run folder.
        data: an opened split, or the name, file or folder of a data set.
        split: which split of a data set that is not opened yet; `all` for a data set that is not split.
        batch: pictures that pass the model together; the figures do not depend on it.
        labels: class names of the model, where it has none or others are wanted.
        device: `auto`, `cpu`, `cuda`, ...
        worst: how many of the worst errors to keep with their pictures.
        bad: what happens to pictures that cannot be read: `fail` stops at the first, `skip` leaves them out.
        progress: told after each batch how far it is.
        precision: what to compute in. `auto` is bf16 in the fast form where that is faster here, and else fp32;
            `int8` is taken where it is faster and agrees, and else `auto` is.
        optimize: whether the fast form (`vitrail.optimize`) may answer, where it is faster here and agrees.
        told: hears which form answers, and why. The evaluation says it too.

    Raises:
        VitrailError: there is no such model, data or split, or their classes do not match.
        DataError: a picture cannot be read (with `skip`: none can), or the model's scores are not numbers.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=10, image_size=16, depth=1)
        >>> result = evaluate(model, "digits")
        >>> result.samples == sum(figures.support for figures in result.classes)
        True
    """
    if batch < 1:
        raise VitrailError(f"batch is {batch}; it must be at least 1.")
    ready = find_model(model, device=device)
    pictures = data if isinstance(data, PictureSet) else open_split(data, split)
    showcase, parts, started = ExampleCollector(errors=worst), [], perf_counter()
    classes = getattr(getattr(ready, "config", None), "num_classes", None)
    # Names that do not fit are refused before the work, where the model says how many classes it has.
    named = None if classes is None else _named(ready, classes, pictures, labels)
    answerer = Answerer(ready, len(pictures), precision=precision, fast=optimize, told=told)
    with inference_mode_for(ready) as place:
        prepare = EvalTransform(ready.preprocess, best_pixels(len(pictures)))
        for numbers, pixels in _batches(prepare, pictures, batch, bad, answerer.gate):
            logits = answerer(prepare.batch(pixels.to(place)))
            ids = [pictures.ids[i] for i in numbers]
            check_finite(logits, ids)
            named = named or _named(ready, logits.shape[1], pictures, labels)
            scores = score(logits, named[1][numbers])
            showcase.add(scores, ids, pixels)
            parts.append(scores)
            if progress is not None:
                progress(numbers[-1] + 1, len(pictures))
    seconds = perf_counter() - started
    if not parts:
        where = "its folder" if isinstance(data, PictureSet) else quote(str(data))
        raise DataError(f"Not one picture of {pictures.name} can be read. See why: vitrail data check {where}")
    assert answerer.form is not None and named is not None
    scores = Scores.concatenate(parts)
    return _conclude(ready, answerer.form, pictures, scores, named[0], showcase, seconds, batch, str(place))


def open_split(data: str | PathLike[str], split: str) -> PictureSet:
    """Open the split of a data set that is to be measured.

    Args:
        data: the name, file or folder of a data set.
        split: `train`, `val`, `test`, or `all` for a data set that is not split.

    Raises:
        VitrailError: there is no such data or split.
    """
    if split in ("train", "val", "test"):
        return open_dataset(str(data), packed=False).require(split)
    if split != "all":
        raise unknown("split", split, ("train", "val", "test", "all"))
    found = dict(open_dataset(str(data), val_share=0.0, packed=False))
    if len(found) > 1:
        raise VitrailError(f"{data} is split into {', '.join(found)}. Evaluate one of them: --split {list(found)[-1]}.")
    [pictures] = found.values()
    pictures.name = pictures.name.rpartition(" ")[0] or pictures.name  # the split that it went to means nothing
    return pictures


def _batches(
    prepare: EvalTransform, pictures: PictureSet, size: int, bad: str, gate: Event
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the numbers and the pixels of each batch, decoded ahead in threads, in the order of the data set."""

    def read(number: int) -> tuple[int, Tensor | None]:
        try:
            return number, prepare.picture(pictures.picture(number, prepare.mode))
        except ImageDecodeError:
            if bad == "fail":
                raise
            return number, None

    found = prefetch_map(read, range(len(pictures)), window=2 * size, gate=gate)
    for group in batched(found, balanced_batch_size(size, len(pictures))):
        good = [(number, pixels) for number, pixels in group if pixels is not None]
        if good:
            yield [number for number, _ in good], torch.stack([pixels for _, pixels in good])


def _named(
    model: nn.Module, classes: int, pictures: PictureSet, given: Labels | None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the model's classes, and its class number of each picture.

    A model without names that has as many classes as the data takes the data's.
    """
    unnamed = given is None and getattr(model, "labels", None) is None
    from_data = unnamed and len(pictures.classes) == classes
    names = pictures.classes if from_data else class_names(model, classes, given)
    return names, _match(pictures, names)


def _match(pictures: PictureSet, names: tuple[str, ...]) -> Tensor:
    """Return the model's class number of each picture: classes are matched by name, so their order is free."""
    places = {name: i for i, name in reversed(list(enumerate(names)))}
    places |= {name: i for i, name in enumerate(pictures.classes) if names[i : i + 1] == (name,)}
    missing = [name for name, count in pictures.counts().items() if count and name not in places]
    if missing:
        raise VitrailError(
            f"{len(missing)} of the {len(pictures.classes)} classes in {pictures.name} are unknown to the model:"
            f" {_few(missing)}.\nIts own {len(names)} classes are {_few(names)}.\n"
            "Evaluate on data with the model's classes, or name the model's classes in order (--labels FILE)."
        )
    return torch.tensor([places.get(name, -1) for name in pictures.classes])[pictures.labels]


def _conclude(
    model: Any,
    form: Form,
    pictures: PictureSet,
    scores: Scores,
    names: tuple[str, ...],
    showcase: ExampleCollector,
    seconds: float,
    batch: int,
    device: str,
) -> Evaluation:
    confusion = count_confusions(scores, len(names))
    classes = class_figures(confusion, names)
    errors, examples = showcase.shown(names)
    return Evaluation(
        model=getattr(model, "variant", "") or type(model).__name__,
        parameters=sum(value.numel() for value in model.parameters()),
        data=pictures.name,
        samples=len(scores.label),
        labels=names,
        top1=top(scores, 1),
        top5=top(scores, 5) if len(names) > 5 else None,
        macro_f1=macro_f1(classes),
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration=calibrate(scores),
        errors=errors,
        examples=examples,
        seconds=seconds,
        images_per_second=len(scores.label) / seconds,
        batch=batch,
        device=device,
        precision=form.precision,
        form=form.name,
        speedup=form.speedup,
        image_size=model.preprocess.size,
    )


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
