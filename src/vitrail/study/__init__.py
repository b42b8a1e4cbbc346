"""Studies: questions about architectures, each answered by a small experiment with seeds, intervals and a page."""

from importlib import import_module
from typing import Any

from vitrail.errors import unknown

STUDIES: dict[str, str] = {
    "windows": "Do windows and their shift change cost or result, and how far does information travel?",
    "collapse": "Do attention maps become alike with depth, and does re-attention or a wider model prevent it?",
    "warmup": "Who trains without warm-up: norms first or last, and which norm suits images and text?",
}
"""The questions, by name of the study; a module of `questions` holds each."""


def find_study(name: str) -> Any:
    """Return the plan of a study.

    Raises:
        VitrailError: there is no such study.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES, hint="`vitrail study` lists them with their questions.")
    return import_module(f"vitrail.study.questions.{name}").PLAN
