"""The flags of a verb together with those of a task: which task a command line is about, and its class."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.export.metadata import is_exported, read_metadata
from vitrail.models.published import PUBLISHED
from vitrail.tasks import DEFAULT, DEFAULT_GENERATOR, TASKS, find_options, task_name

_PLACES = ("", "weights/best", "weights/last")


def join_options(verb: type, options: type) -> type:
    """Return the class of a verb with the flags of a task's options; they come after the verb's own.

    Example:
        >>> from vitrail.cli.evaluate import EvaluateVerb
        >>> from vitrail.tasks.classify.options import EvaluateOptions
        >>> join_options(EvaluateVerb, EvaluateOptions)("model", "data", worst=3).worst
        3
    """
    body: dict[str, Any] = {"__doc__": verb.__doc__, "__module__": verb.__module__}
    return dataclass(frozen=True)(type(verb.__name__.removesuffix("Verb"), (options, verb), body))


def named(words: Sequence[str], name: str) -> str | None:
    """Return the value of a flag among words that nobody has parsed yet, or None.

    Example:
        >>> named(["digits", "--task", "classify"], "task"), named(["task=classify"], "task"), named([], "task")
        ('classify', 'classify', None)
    """
    for i, word in enumerate(words):
        key, sign, value = word.partition("=")
        if key.lstrip("-") == name and sign:
            return value
        if word == f"--{name}" and i + 1 < len(words):
            return words[i + 1]
    return None


def task_of_model(words: Sequence[str]) -> str:
    """Return the task of the model folder, run folder, exported file or catalogue name, the first positional word.

    Anything else is of the default task.

    Example:
        >>> task_of_model(["no/such/folder"]), task_of_model(["faster_rcnn"])
        ('classify', 'detect')
    """
    model = named(words, "model") or next((word for word in words if not word.startswith("-")), "")
    if is_exported(model):
        return _known((read_metadata(model) or {}).get("task", DEFAULT))
    for place in _PLACES:
        try:
            config = json.loads((Path(model) / place / "config.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        return _known(config.get("task", DEFAULT) if isinstance(config, dict) else DEFAULT)
    return _known(PUBLISHED[model].task if model in PUBLISHED else DEFAULT)


def _known(kind: Any) -> str:
    """Return the task of a kind of model; of an unknown one the default: loading the model names the fault."""
    task = task_name(kind) if isinstance(kind, str) else DEFAULT
    return task if task in TASKS else DEFAULT


def task_of_generator(words: Sequence[str]) -> str:
    """Return the task of the model among the words if it is one that generates, else the default of those.

    Example:
        >>> task_of_generator(["gpt2"])
        'language'
    """
    task = task_of_model(words)
    return task if hasattr(find_options(task), "GenerateOptions") else DEFAULT_GENERATOR
