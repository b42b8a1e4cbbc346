"""Evaluation of a segmenter: one pass over a split, at the size of the stored masks."""

from collections.abc import Iterator
from heapq import nlargest
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.label_map import IGNORE, LabelMap, from_metadata
from vitrail.data.masks import MaskSet
from vitrail.data.prefetch import batched, prefetch_map
from vitrail.errors import DataError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.parts.model import Model
from vitrail.tasks.data_url import encode
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.segment.evaluation import ImageScore, SegmentEvaluation
from vitrail.tasks.segment.loading import WholeImages, mode_of, normalise, to_pixels
from vitrail.tasks.segment.loss import SegmentLoss
from vitrail.tasks.segment.metric import confusion_matrix, pixel_scores
from vitrail.tasks.segment.options import EvaluateOptions
from vitrail.tasks.segment.result import overlay
from vitrail.tasks.segment.scores import ImageScorer, images_at_once
from vitrail.tasks.skipped import skipped_fields

THUMBNAIL = 320
"""Longest side of an image in the report, in pixels."""


class Read(NamedTuple):
    """A sample that was read: number, image, pixels for the model, class indices."""

    number: int
    image: Image.Image
    pixels: Tensor
    classes: np.ndarray


def evaluate_segmenter(
    model: Model,
    data: MaskSet,
    options: EvaluateOptions,
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
) -> SegmentEvaluation:
    """Evaluate a segmenter on a split; figures are pooled over all labelled pixels and do not depend on the batch.

    Args:
        model: a segmenter on its device.
        data: the split.
        options: batch, precision, windows, mirror image, number of worst images kept.
        notify: receives the implementation that is chosen on the first batch.
        progress: receives the numbers of images done and of all images, after each image.

    Raises:
        DataError: a sample cannot be read (with `bad="skip"`: none can), or a score is not finite.
    """
    labels, started = from_metadata(model.metadata), perf_counter()
    precision: Any = options.precision
    runner = InferenceRunner(model, len(data), precision=precision, fast=options.optimize, notify=notify)
    scorer = ImageScorer(runner, options.window, options.overlap, options.flip_test)
    collector = _Collector(labels, options.worst)
    skipped = list(data.skipped)
    with inference_mode_for(model) as device:
        samples = _read(model, data, labels, options.bad, 2 * options.batch, runner.gate, skipped)
        for batch in batched(samples, options.batch):
            for group in _same_size(batch, len(labels.names)):
                pixels = torch.stack([each.pixels for each in group]).to(device)
                scores = scorer(normalise(pixels, model.preprocess), group[0].classes.shape)
                for each, own in zip(group, scores, strict=True):
                    collector.add(data.ids[each.number], each, own)
            if progress is not None:
                progress(batch[-1].number + 1, len(data))
    if not collector.images:
        raise DataError(f"Not one sample of {data.name} can be read. See why: vitrail data check FOLDER")
    assert runner.form is not None
    return SegmentEvaluation(
        model=getattr(model, "variant", "") or type(model).__name__,
        parameters=sum(value.numel() for value in model.parameters()),
        data=data.name,
        samples=len(collector.images),
        labels=labels.names,
        confusion=tuple(map(tuple, collector.confusion.tolist())),
        loss=collector.loss / max(collector.pixels, 1),
        interval=bootstrap(collector.each),
        images=tuple(collector.images),
        worst=tuple(collector.kept()),
        seconds=perf_counter() - started,
        device=str(device),
        precision=runner.form.precision,
        form=runner.form.name,
        inference=describe(options),
        **skipped_fields(skipped),
    )


def describe(options: EvaluateOptions) -> str:
    """Return how images are read, in a few words.

    Example:
        >>> describe(EvaluateOptions())
        'whole images'
    """
    how = f"windows of {options.window} pixels" if options.window else "whole images"
    return how + (", with the mirror image" if options.flip_test else "")


def _read(
    model: Model, data: MaskSet, labels: LabelMap, bad: str, window: int, gate: Event, skipped: list[str]
) -> Iterator[Read]:
    """Yield the samples in order, read ahead in threads; names of unreadable ones are added to `skipped`."""
    whole, mode = WholeImages(model.metadata.get("short_side")), mode_of(model.preprocess)

    def read(number: int) -> Read | None:
        try:
            image, mask = data.pair(number, mode)
            return Read(number, image, to_pixels(whole.image(image)), labels.encode(mask, data.ids[number]))
        except ImageDecodeError:
            if bad == "fail":
                raise
            return None

    for number, each in enumerate(prefetch_map(read, range(len(data)), window=window, gate=gate)):
        if each is None:
            skipped.append(data.ids[number])
        else:
            yield each


def _same_size(batch: list[Read], classes: int) -> Iterator[list[Read]]:
    """Yield groups of images of one size, so few that their scores stay small."""
    groups: dict[Any, list[Read]] = {}
    for each in batch:
        groups.setdefault((each.pixels.shape, each.classes.shape), []).append(each)
    for group in groups.values():
        step = images_at_once(classes, (group[0].classes.shape[0], group[0].classes.shape[1]))
        yield from (group[i : i + step] for i in range(0, len(group), step))


class _Collector:
    """Sums of an evaluation, and its worst images."""

    def __init__(self, labels: LabelMap, worst: int):
        self.labels, self.most = labels, worst
        count = len(labels.names)
        self.confusion = np.zeros((count, count), dtype=np.int64)
        self.loss, self.pixels = 0.0, 0
        self.images: list[ImageScore] = []
        self.each: list[np.ndarray] = []
        self._worst: list[tuple[float, ImageScore, Read, np.ndarray]] = []

    def add(self, name: str, read: Read, scores: Tensor) -> None:
        """Add an image."""
        if not bool(scores.isfinite().all()):
            raise DataError(f"{name}: the model's scores are not finite; its weights are damaged.")
        classes = torch.from_numpy(read.classes).long().to(scores.device)
        predicted = scores.argmax(0)
        own = confusion_matrix(predicted, classes, len(self.labels.names)).cpu().numpy()
        self.confusion += own
        self.loss += float(SegmentLoss().of(scores[None], classes[None]))
        self.pixels += int(own.sum())
        self.each.append(own)
        figures = pixel_scores(own)
        score = ImageScore(name, figures.miou, figures.accuracy, int(own.sum()))
        self.images.append(score)
        if own.sum() and self.most:
            entry = (1 - figures.accuracy, score, read, predicted.cpu().numpy())
            self._worst = nlargest(self.most, [*self._worst, entry], key=lambda item: item[0])

    def kept(self) -> Iterator[dict[str, str | float]]:
        """Yield the worst images with their masks, ready for JSON."""
        for _, score, read, predicted in self._worst:
            truth = np.where(read.classes == IGNORE, 255, self.labels.decode(np.maximum(read.classes, 0)))
            found = self.labels.decode(predicted)
            wrong = np.where((predicted == read.classes) | (read.classes == IGNORE), 255, 1)
            pages = (overlay(read.image, truth, ignore=255), overlay(read.image, found), _errors(read.image, wrong))
            names = ("truth", "found", "errors")
            urls = {name: encode(_small(page)) for name, page in zip(names, pages, strict=True)}
            yield {"id": score.id, "miou": score.miou, "accuracy": score.accuracy, **urls}


def _errors(image: Image.Image, wrong: np.ndarray) -> Image.Image:
    return overlay(image.convert("L"), wrong, opacity=0.7, ignore=255)


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def bootstrap(each: list[np.ndarray], rounds: int = 500) -> tuple[float, float] | None:
    """Return the 95 % interval of the pooled mIoU when images are drawn again with replacement.

    Pixels of an image are not independent, so an interval from pixel counts would be far too narrow. None for fewer
    than ten images, or if the matrices would fill the memory.

    Args:
        each: confusion matrix of each image.
        rounds: number of resamplings.
    """
    if len(each) < 10 or len(each) * each[0].size > 5e7:
        return None
    random = np.random.default_rng(0)
    matrices = np.stack(each).reshape(len(each), -1).astype(np.float64)
    weights = random.multinomial(len(each), np.full(len(each), 1 / len(each)), size=rounds).astype(np.float64)
    pooled = (weights @ matrices).reshape(rounds, *each[0].shape)
    low, high = np.nanquantile([pixel_scores(one).miou for one in pooled], [0.025, 0.975])
    return float(low), float(high)
