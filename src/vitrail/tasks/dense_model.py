"""Choice of the model of a dense task: one of the catalogue, or a head on a classifier's backbone."""

from typing import Any

from vitrail.errors import VitrailError
from vitrail.models import make_config, task_of
from vitrail.tasks.task import RunSpec


def dense_model(run: RunSpec, task: str, head: str, classes: int) -> tuple[str, dict[str, Any]]:
    """Return the variant to build and the fields of its config.

    Fields of `--set` that its config does not have go to the backbone's.

    Args:
        run: variant of the task or of a classifier, and the fields.
        task: the task.
        head: variant to take on the backbone of a classifier.
        classes: number of classes in the data.

    Raises:
        VitrailError: the variant is of another task, or its number of classes was given.
    """
    fields, own_task = dict(run.overrides), task_of(run.variant)
    if fields.pop("num_classes", classes) != classes:
        raise VitrailError(f"{run.data} has {classes} classes; leave num_classes out of --set.")
    if own_task not in (task, "classify"):
        raise VitrailError(
            f"{run.variant} is a model of the task {own_task}; give one of the task {task}, or a classifier's backbone."
        )
    name = run.variant if own_task == task else head
    known = vars(make_config(name))
    chosen: dict[str, Any] = {"backbone": run.variant} if own_task == "classify" else {}
    own = {key: value for key, value in fields.items() if key not in known}
    chosen |= {key: value for key, value in fields.items() if key in known}
    if own:
        usual = () if "backbone" in chosen else make_config(name).backbone_config
        chosen["backbone_config"] = {**dict(usual), **own}
    return name, {**chosen, "num_classes": classes}
