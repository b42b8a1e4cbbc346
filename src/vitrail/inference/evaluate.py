"""Evaluation of a model on a split, for every task."""

from os import PathLike, fspath
from typing import Any

from vitrail.inference.model_loading import ModelSource, find_model, task_of
from vitrail.tasks import find_options, find_task, open_evaluation
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.skipped import skip_hint


def evaluate(
    model: ModelSource,
    data: object,
    *,
    split: str = "test",
    device: str = "auto",
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """Evaluate a model on a split: each sample once, independent of the batch size, with the model's preprocessing.

    In fp32 by default, as in validation during training: bf16 changes the class of single images, so metrics would
    depend on the machine.

    Args:
        model: a model, a model folder or a run folder.
        data: an opened split, or the name, file or folder of a data set.
        split: split of a data set that is not opened yet; `all` for a data set that is not split.
        device: `auto`, `cpu`, `cuda`, ...
        notify: receives the implementation that the job runs on, once it is chosen.
        progress: receives the numbers of samples done and of all samples, after each batch.
        options: fields of the task's `EvaluateOptions`. Of every task: `batch`, `precision`, `optimize` (allow the
            optimized model if it is faster here and agrees) and `bad` (`fail` stops at the first unreadable sample,
            `skip` leaves them out). Of classification: `labels` (class names, or a file of them) and `worst` (number of
            the worst errors to keep with their images).

    Raises:
        VitrailError: there is no such model, data, split or option, or model and data do not fit.
        DataError: a sample cannot be read (with `skip`: none can), or the model's outputs are not finite.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", num_classes=10, image_size=16, depth=1)
        >>> result = evaluate(model, "digits")
        >>> result.samples == sum(figures.support for figures in result.classes)
        True
    """
    ready = find_model(model, device=device)
    name = task_of(ready)
    task, chosen = find_task(name), find_options(name).EvaluateOptions(**options)
    samples = open_evaluation(task, fspath(data), split, chosen) if isinstance(data, str | PathLike) else data
    with skip_hint(chosen.bad):
        return task.evaluate(ready, samples, chosen, notify, progress)
