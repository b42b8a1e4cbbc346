"""Evaluation of a detector: one pass over a split, in pixels of the source images."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from vitrail.data.boxes.dataset import BoxSet
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.prefetch import batched, prefetch_map
from vitrail.data.view import fit_view
from vitrail.errors import DataError, VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.data_url import encode
from vitrail.tasks.detect.average_precision import match
from vitrail.tasks.detect.coco_eval import coco_figures, coco_results, ground_truth
from vitrail.tasks.detect.evaluation import ClassPrecision, DetectionEvaluation, DrawnImage
from vitrail.tasks.detect.options import EvaluateOptions
from vitrail.tasks.detect.predictor import detect, detection_runner, names_of, source_boxes
from vitrail.tasks.detect.result import draw_boxes
from vitrail.tasks.inference import device_of
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.skipped import skipped_fields

Found = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Number of an image, and boxes, scores and labels of its objects."""

SHOWN = 0.5
"""Least score of a detection that is drawn and counted in the report's images."""


def evaluate_detector(
    model: Model,
    data: BoxSet,
    options: EvaluateOptions,
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
) -> DetectionEvaluation:
    """Evaluate a detector on a split.

    Args:
        model: a detector on its device.
        data: the split; its classes are matched with the model's by name.
        options: batch, precision, number of worst images.
        notify: receives the implementation that is chosen on the first batch.
        progress: receives the numbers of images done and of all images.

    Raises:
        VitrailError: the classes of model and data do not match, or the precision is not one that detectors run in.
        DataError: an image cannot be read (with `bad="skip"`: none can).
    """
    runner = detection_runner(model, len(data), options, notify)
    data = with_classes(data, names_of(model))
    started = perf_counter()
    mode, side = ("L" if model.preprocess.channels == 1 else "RGB"), model.preprocess.size
    found: list[Found] = []
    skipped: list[str] = []

    def read(number: int) -> tuple[int, Any]:
        try:
            image = data.image(number, mode)
        except ImageDecodeError:
            if options.bad == "fail":
                raise
            return number, None
        view = fit_view(image.size, side, longest=side)
        return number, (np.array(view.image(image)), view, image.size)

    for group in batched(prefetch_map(read, range(len(data)), 2 * options.batch, gate=runner.gate), options.batch):
        by_shape: dict[tuple[int, ...], list[Any]] = {}
        for number, loaded in group:
            if loaded is None:
                skipped.append(data.ids[number])
                continue
            by_shape.setdefault(tuple(-(-side // 32) for side in loaded[0].shape[:2]), []).append((number, loaded))
        for members in by_shape.values():
            boxes = detect(runner, [loaded[0] for _, loaded in members])
            for (number, (_, view, size)), each in zip(members, boxes, strict=True):
                own = source_boxes(each, view, size)
                found.append((number, own, each.scores.double().cpu().numpy(), each.labels.cpu().numpy()))
        if progress is not None:
            progress(group[-1][0] + 1, len(data))
    if not found:
        raise DataError(f"Not one image of {data.name} can be read. See why: vitrail data check FOLDER --task detect")
    assert runner.form is not None
    seconds = perf_counter() - started
    kept = data.take(sorted(number for number, *_ in found), data.name)
    places = {number: place for place, number in enumerate(sorted(number for number, *_ in found))}
    moved = [(places[number], boxes, scores, labels) for number, boxes, scores, labels in found]
    figures, precision, recall = coco_figures(ground_truth(kept), coco_results(moved))  # pyright: ignore[reportArgumentType]
    return DetectionEvaluation(
        model=model.variant or type(model).__name__,
        data=data.name,
        parameters=sum(value.numel() for value in model.parameters()),
        images=len(kept),
        **skipped_fields(skipped),
        labels=data.classes,
        figures=figures,
        classes=class_precision(kept, precision, recall),
        worst=worst_images(kept, moved, options.worst),
        seconds=seconds,
        precision=runner.form.precision,
        device=str(device_of(model)),
        image_size=side,
    )


def with_classes(data: BoxSet, names: tuple[str, ...]) -> BoxSet:
    """Return a data set whose class numbers are those of a model, matched by name.

    Raises:
        VitrailError: an object's class is unknown to the model.
    """
    if data.classes == names:
        return data
    used = [name for name, count in data.counts().items() if count]
    if missing := [name for name in used if name not in names]:
        raise VitrailError(
            f"{len(missing)} classes of {data.name} are unknown to the model: {', '.join(missing[:4])}.\n"
            f"Its own classes are {', '.join(names[:6])}. Evaluate on data with the model's classes."
        )
    places = np.array([names.index(name) if name in names else -1 for name in data.classes])
    records = [type(r)(**{**vars(r), "labels": places[r.labels]}) for r in data.records]
    return BoxSet(data.name, names, records)


def class_precision(data: BoxSet, precision: np.ndarray, recall: np.ndarray) -> tuple[ClassPrecision, ...]:
    """Return the figures of each class, with the precision at overlap 0.5 over 101 recalls."""
    rows = []
    for place, (name, count) in enumerate(data.counts().items()):
        own = precision[:, :, place]
        real = count > 0
        curve = tuple(round(float(v), 4) for v in own[0]) if real else ()
        mean, half = (float(own.mean()), float(own[0].mean())) if real else (0.0, 0.0)
        rows.append(ClassPrecision(name, count, mean, half, float(recall[0, place]) if real else 0.0, curve))
    return tuple(rows)


def worst_images(data: BoxSet, found: Sequence[Found], count: int) -> tuple[DrawnImage, ...]:
    """Return the images with the most faults at overlap 0.5: objects missed, and detections that are wrong."""
    scored = []
    for number, boxes, scores, labels in found:
        record = data.records[number]
        shown = scores >= SHOWN
        missed = wrong = 0
        for label in np.union1d(record.labels, labels[shown]):
            real = record.labels == label
            matched = match(boxes[shown & (labels == label)], record.boxes[real], record.ignore[real], np.array([0.5]))
            missed += int((~record.ignore[real]).sum() - matched.right.sum())
            wrong += int((~matched.right & ~matched.ignored).sum())
        scored.append((missed + wrong, missed, wrong, number, boxes[shown], scores[shown], labels[shown]))
    scored.sort(key=lambda each: (-each[0], each[3]))
    result = []
    for _, missed, wrong, number, boxes, scores, labels in scored[:count]:
        image = data.image(number)
        captions = [f"{data.classes[i]} {s:.0%}" for i, s in zip(labels, scores, strict=True)]
        drawn = draw_boxes(image, boxes, captions, labels.tolist())
        record = data.records[number]
        true = draw_boxes(image, record.boxes, [""] * len(record.boxes), record.labels.tolist())
        for each in (drawn, true):
            each.thumbnail((480, 480))
        result.append(DrawnImage(record.id, missed, wrong, encode(drawn), encode(true)))
    return tuple(result)
