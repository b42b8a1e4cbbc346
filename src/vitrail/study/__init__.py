"""Studies: questions about architectures, each answered by a small experiment with seeds, intervals and a page."""

from importlib import import_module
from types import ModuleType

from vitrail.errors import unknown

STUDIES: dict[str, str] = {
    "windows": "Do windows and their shift change cost or result, and how far does information travel?",
    "collapse": "Do attention maps become alike with depth, and does re-attention or a wider model prevent it?",
    "warmup": "Who trains without warm-up: norms first or last, and which norm suits images and text?",
    "recurrence": "Is autoregression recurrence: what do RetNet, a cached Transformer and an LSTM carry on?",
    "published": "Do FLOPs order ViT-B/16-384, ViT-L/16-384, Swin-B-224 and Swin-B-384 by speed?",
    "attention": "Does attention explain what a model answers?",
    "positions": "Which position scheme survives another image size: none, sin/cos, learned, relative, rotary or PEG?",
    "cnn": "When is a CNN better than a Transformer?",
    "mixers": "One MetaFormer, two dozen token mixers: which is best at equal cost?",
    "tickets": "Are there winning lottery tickets in a small ViT, and do random tickets lose?",
}
"""The questions, by name of the study; a module of `questions` holds each."""


def find_study(name: str) -> ModuleType:
    """Return the plan of a study.

    Raises:
        VitrailError: there is no such study.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES, hint="`vitrail study` lists them with their questions.")
    return import_module(f"vitrail.study.questions.{name}").PLAN
