"""Evaluation of a classifier: one pass over a split."""

from collections.abc import Iterator
from os import PathLike
from threading import Event
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import open_dataset
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.data.table import Columns
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError, unknown
from vitrail.fused.auto_optimize import InferenceRunner, SelectedModel
from vitrail.native.image_resize import best_pixels
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.measures import measure
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.classes.scores import Scores, score
from vitrail.tasks.classify.evaluation import ClassificationEvaluation
from vitrail.tasks.classify.examples import ExampleCollector
from vitrail.tasks.classify.options import EvaluateOptions, check_views
from vitrail.tasks.classify.view_average import averaged
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.skipped import skipped_fields


def evaluate_classifier(
    model: Model,
    images: ImageSet,
    options: EvaluateOptions,
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
) -> ClassificationEvaluation:
    """Evaluate a classifier on a split; see `vitrail.evaluate`.

    In fp32 the optimized model's logits are those of the model to 1e-4, which is checked on the first images.

    Args:
        model: a classifier on its device.
        images: the split.
        options: batch, precision, class names, number of errors kept.
        notify: receives the implementation that is chosen on the first batch.
        progress: receives the numbers of images done and of all images, after each batch.

    Raises:
        VitrailError: the classes of model and data do not match.
        DataError: an image cannot be read (with `bad="skip"`: none can), or a logit is not finite.
    """
    if options.batch < 1:
        raise VitrailError(f"batch is {options.batch}; it must be at least 1.")
    examples, parts, started = ExampleCollector(errors=options.worst), [], perf_counter()
    skipped: list[str] = []
    classes = getattr(getattr(model, "config", None), "num_classes", None)
    # Checked before the evaluation, if the model declares its number of classes.
    named = None if classes is None else _named(model, classes, images, options.labels)
    precision: Any = options.precision
    runner = InferenceRunner(model, len(images), precision=precision, fast=options.optimize, notify=notify)
    answer = averaged(runner, check_views(options.tta))
    with inference_mode_for(model) as device:
        prepare = EvalTransform(model.preprocess, best_pixels(len(images)))
        for numbers, pixels in _batches(prepare, images, options.batch, options.bad, runner.gate, skipped):
            logits = answer(prepare.batch(pixels.to(device)))
            ids = [images.ids[i] for i in numbers]
            check_finite(logits, ids)
            named = named or _named(model, logits.shape[1], images, options.labels)
            scores = score(logits, named[1][numbers])
            examples.add(scores, ids, pixels)
            parts.append(scores)
            if progress is not None:
                progress(numbers[-1] + 1, len(images))
    seconds = perf_counter() - started
    if not parts:
        raise DataError(f"Not one image of {images.name} can be read. See why: vitrail data check FOLDER")
    assert runner.form is not None and named is not None
    scores = Scores.concatenate(parts)
    return _conclude(
        model, runner.form, images, scores, named[0], examples, skipped, seconds, options.batch, str(device)
    )


def open_split(data: str | PathLike[str], split: str, columns: Columns | None = None) -> ImageSet:
    """Open the split of a data set to evaluate on.

    Args:
        data: the name, file or folder of a data set.
        split: `train`, `val`, `test`, or `all` for a data set that is not split.
        columns: names of the columns of a table.

    Raises:
        VitrailError: there is no such data or split.
    """
    if split in ("train", "val", "test"):
        return open_dataset(str(data), packed=False, columns=columns).require(split)
    if split != "all":
        raise unknown("split", split, ("train", "val", "test", "all"))
    found = dict(open_dataset(str(data), val_share=0.0, packed=False, columns=columns))
    if len(found) > 1:
        raise VitrailError(f"{data} is split into {', '.join(found)}. Evaluate one of them: --split {list(found)[-1]}.")
    [images] = found.values()
    images.name = images.name.rpartition(" ")[0] or images.name  # without the name of an arbitrary split
    return images


def _batches(
    prepare: EvalTransform, images: ImageSet, size: int, bad: str, gate: Event, skipped: list[str]
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices and pixels of each batch in the order of the data set, prefetched in threads.

    Names of unreadable images are added to `skipped`.
    """

    def read(number: int) -> tuple[int, Tensor | None]:
        try:
            return number, prepare.to_pixels(images.image(number, prepare.mode))
        except ImageDecodeError:
            if bad == "fail":
                raise
            return number, None

    found = prefetch_map(read, range(len(images)), window=2 * size, gate=gate)
    for group in batched(found, balanced_batch_size(size, len(images))):
        good = [(number, pixels) for number, pixels in group if pixels is not None]
        skipped += [images.ids[number] for number, pixels in group if pixels is None]
        if good:
            yield [number for number, _ in good], torch.stack([pixels for _, pixels in good])


def _named(model: nn.Module, classes: int, images: ImageSet, given: Any) -> tuple[tuple[str, ...], Tensor]:
    """Return the class names of the model, and the model's class index of each image.

    A model without names and with as many classes as the data uses the names of the data.
    """
    unnamed = given is None and getattr(model, "labels", None) is None
    from_data = unnamed and len(images.classes) == classes
    names = images.classes if from_data else class_names(model, classes, given)
    return names, _match(images, names)


def _match(images: ImageSet, names: tuple[str, ...]) -> Tensor:
    """Return the model's class index of each image: classes are matched by name, so their order is free."""
    places = {name: i for i, name in reversed(list(enumerate(names)))}
    places |= {name: i for i, name in enumerate(images.classes) if names[i : i + 1] == (name,)}
    missing = [name for name, count in images.counts().items() if count and name not in places]
    if missing:
        raise VitrailError(
            f"{len(missing)} of the {len(images.classes)} classes in {images.name} are unknown to the model:"
            f" {_few(missing)}.\nIts own {len(names)} classes are {_few(names)}.\n"
            "Evaluate on data with the model's classes, or name the model's classes in order (--labels FILE)."
        )
    return torch.tensor([places.get(name, -1) for name in images.classes])[images.labels]


def _conclude(
    model: Model,
    form: SelectedModel,
    images: ImageSet,
    scores: Scores,
    names: tuple[str, ...],
    collector: ExampleCollector,
    skipped: list[str],
    seconds: float,
    batch: int,
    device: str,
) -> ClassificationEvaluation:
    errors, examples = collector.collect(names)
    return ClassificationEvaluation(
        **measure(scores, names),
        model=getattr(model, "variant", "") or type(model).__name__,
        parameters=sum(value.numel() for value in model.parameters()),
        data=images.name,
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
        **skipped_fields(skipped),
    )


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
