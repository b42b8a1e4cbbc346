"""Names of variants: their families, their tasks, and the modules that build them."""

import os
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from types import ModuleType

from vitrail.errors import unknown
from vitrail.models.custom import VARIABLE, added
from vitrail.models.published import PUBLISHED

FAMILIES = tuple(dict.fromkeys(known.family for known in PUBLISHED.values()))
HINT = f"See them all with: vitrail models. One of your own is in a file that {VARIABLE} names."


def catalogue() -> dict[str, str]:
    """Map each variant's name to that of its architecture, family by family, those of the user's own last.

    Raises:
        VitrailError: a file of the user's own cannot be used.

    Example:
        >>> catalogue()["swin_tiny_patch4_window7_224"]
        'swin'
    """
    own = {name: _family(module) for name, module in _own(os.environ.get(VARIABLE, "")).items()}
    return {name: known.family for name, known in PUBLISHED.items()} | own


@cache
def _own(paths: str) -> dict[str, ModuleType]:
    return {name: module for module in added(paths, FAMILIES, PUBLISHED) for name in module.VARIANTS}


def _family(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def family_of(name: str) -> str:
    """Return the architecture's name of a variant: `vit`, `swin`, ...

    Example:
        >>> family_of("vit_tiny_patch16_224")
        'vit'
    """
    return PUBLISHED[name].family if name in PUBLISHED else _family(find(name))


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """List the names of variants that match a shell pattern (`swin*`), in the order of the papers' tables.

    Args:
        pattern: shell pattern of the names.
        task: if given, only variants whose published weights do this task (`classify`, `language`, `translate`...).

    Example:
        >>> len(list_models("vit_base_patch16*")) >= 2
        True
    """
    names = [name for name in catalogue() if fnmatchcase(name, pattern)]
    return names if task is None else [name for name in names if task_of(name) == task]


def task_of(name: str) -> str:
    """Return the task of a variant's published weights; variants of the user's own classify images.

    Example:
        >>> task_of("gpt2"), task_of("swinir_light_x2")
        ('language', 'restore')
    """
    return PUBLISHED[name].task if name in PUBLISHED else "classify"


def find(name: str) -> ModuleType:
    """Return the module that builds a variant.

    Raises:
        VitrailError: if the name is unknown; the message holds the nearest ones.
    """
    if name in PUBLISHED:  # a faulty custom file does not affect published models
        return import_module(f"vitrail.models.{PUBLISHED[name].family}")
    own = _own(os.environ.get(VARIABLE, ""))
    if name not in own:
        raise unknown("model", name, catalogue(), hint=HINT)
    return own[name]
