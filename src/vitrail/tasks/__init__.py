"""Tasks: model, loss, metrics and results of each, with the interfaces of `task.py`."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrail.errors import unknown

if TYPE_CHECKING:
    from vitrail.tasks.options import EvaluationOptions
    from vitrail.tasks.task import Task


class Modules(NamedTuple):
    """The modules of a task.

    Args:
        options: holds `TrainOptions`, `PredictOptions` and `EvaluateOptions`; imports no torch.
        task: holds `TASK`.
    """

    options: str
    task: str


TASKS = {
    "classify": Modules("vitrail.tasks.classify.options", "vitrail.tasks.classify.task"),
    "multilabel": Modules("vitrail.tasks.multilabel.options", "vitrail.tasks.multilabel.task"),
    "complete": Modules("vitrail.tasks.complete.options", "vitrail.tasks.complete.task"),
    "language": Modules("vitrail.tasks.language.options", "vitrail.tasks.language.task"),
    "pretrain": Modules("vitrail.tasks.pretrain.options", "vitrail.tasks.pretrain.task"),
    "segment": Modules("vitrail.tasks.segment.options", "vitrail.tasks.segment.task"),
    "translate": Modules("vitrail.tasks.translate.options", "vitrail.tasks.translate.task"),
    "sentiment": Modules("vitrail.tasks.sentiment.options", "vitrail.tasks.sentiment.task"),
    "parts": Modules("vitrail.tasks.parts.options", "vitrail.tasks.parts.task"),
    "points": Modules("vitrail.tasks.points.options", "vitrail.tasks.points.task"),
    "detect": Modules("vitrail.tasks.detect.options", "vitrail.tasks.detect.task"),
    "restore": Modules("vitrail.tasks.restore.options", "vitrail.tasks.restore.task"),
}
"""Modules of each task by its name. They are imported when the task is used."""

KINDS = {"masked": "pretrain", "vector": "pretrain"}
"""Task of each kind of model in the catalogue that has another name: masked words alone, and vectors of sentences."""

DEFAULT = "classify"
"""Task of a command that names none, and of run and model folders written before there were others."""

DEFAULT_GENERATOR = "language"
"""Task of `vitrail generate` if the model does not state a task that generates."""


def find_task(name: str) -> "Task":
    """Return a task by its name.

    Raises:
        VitrailError: unknown name; the message lists the nearest.

    Example:
        >>> find_task("classify").metrics[0].title
        'Top-1'
    """
    return import_module(_modules(name).task).TASK


def find_options(name: str) -> ModuleType:
    """Return the module with the option classes of a task.

    Example:
        >>> find_options("classify").PredictOptions(top=3).top
        3
    """
    return import_module(_modules(name).options)


def open_evaluation(task: "Task", spec: str, split: str, options: "EvaluationOptions") -> Any:
    """Open the split of a data set to evaluate on, as the options of the evaluation say.

    Args:
        task: the task; it may have `open_evaluation(spec, split, options)`, else `open_split` is called.
        spec: name, file or folder of the data set.
        split: `train`, `val`, `test`, or `all` for a data set that is not split.
        options: the task's `EvaluateOptions`.
    """
    own = getattr(task, "open_evaluation", None)
    return task.open_split(spec, split) if own is None else own(spec, split, options)


def task_name(kind: str) -> str:
    """Return the name of the task that runs models of a kind; an unknown kind is returned unchanged.

    Example:
        >>> task_name("masked"), task_name("classify")
        ('pretrain', 'classify')
    """
    return KINDS.get(kind, kind)


def _modules(name: str) -> Modules:
    name = task_name(name)
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
