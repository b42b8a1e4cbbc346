"""Prediction for every task, on one input or on any number of them."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.errors import DataError, VitrailError
from vitrail.inference.model_loading import ModelSource, find_model, task_of
from vitrail.tasks import find_options, find_task
from vitrail.tasks.results import Input, Notify, Predictor


def predict(
    model: ModelSource, inputs: object, *, device: str = "auto", notify: Notify = lambda choice: None, **options: Any
) -> list[Any]:
    """Predict class names for images, or the output of the model's task.

    An input that cannot be read yields a result with its `error`; the others are processed. Predictions do not depend
    on `batch`. If there are enough inputs, the first few also run through the optimized model (`vitrail.optimize`),
    which is used for all others if it is faster and agrees.

    Args:
        model: a model, a model folder or a run folder.
        inputs: for images a path, a folder, a pattern such as `photos/*.jpg`, a PIL image, an array `(Y, X, C)`, a
            tensor `(C, Y, X)` or `(B, C, Y, X)`, or many of them in a list.
        device: `auto`, `cpu`, `cuda`, ...
        notify: receives the implementation that the job runs on, once it is chosen.
        options: fields of the task's `PredictOptions`. Of every task: `batch`, `precision` (`fp32` by default; `auto`
            is bf16 in the optimized model if that is faster here, else fp32; `int8` is taken if it is faster and
            agrees) and `optimize`. Of classification: `top` (classes per result), `labels` (class names, or a file of
            them) and `draft` (decode large JPEGs at a smaller scale).

    Returns:
        One result for each input, in the same order.

    Raises:
        VitrailError: there is no such model, input or option.

    Example:
        >>> import numpy, vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1)
        >>> [answer] = predict(model, numpy.zeros((40, 50, 3), "uint8"), labels=["cat", "dog", "fox"], top=2)
        >>> answer.path, len(answer.top())
        ('image 0', 2)
    """
    ready = find_model(model, device=device)
    name = task_of(ready)
    task, chosen = find_task(name), find_options(name).PredictOptions(**options)
    found = task.collect(inputs)
    return list(predictions(task.predictor(ready, chosen, len(found), notify), found, chosen.batch))


def predictions(predictor: Predictor, inputs: Iterable[Input], batch: int) -> Iterator[Any]:
    """Yield the results one by one, in the order of the inputs.

    Inputs are prefetched in threads during the forward pass; at most two batches are in memory at a time.

    Args:
        predictor: predictor of the task.
        inputs: items from `Task.collect`.
        batch: batch size.
    """
    if batch < 1:
        raise VitrailError(f"batch is {batch}; it must be at least 1.")
    count = len(inputs) if isinstance(inputs, Sized) else None

    def load(item: Any) -> tuple[Any, Any]:
        try:
            return item, predictor.load(item)
        except DataError as error:
            return item, error

    loaded = prefetch_map(load, inputs, window=2 * batch, gate=predictor.gate)
    for group in batched(loaded, balanced_batch_size(batch, count)):
        good = [(item, value) for item, value in group if not isinstance(value, DataError)]
        results = iter(predictor.predict(good) if good else ())
        for item, value in group:
            if isinstance(value, DataError):
                reason = value.reason if isinstance(value, ImageDecodeError) else str(value)
                yield predictor.failure(item, reason)
            else:
                yield next(results)
