"""From words of the command line to models: names, sources, options of each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrail.errors import VitrailError, unknown

if TYPE_CHECKING:
    from vitrail.serving.limits import Limits
    from vitrail.serving.served_model import ServedModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SKIPPED = {"best", "last", "weights", "runs"}


class Source(NamedTuple):
    """A model of the command line: its name in routes, and where it is."""

    name: str
    place: str


def name_sources(words: Sequence[str]) -> list[Source]:
    """Return names and sources of models; without `NAME=` or `NAME:` the name is that of the last folder.

    Raises:
        VitrailError: there are none, a name is not valid, or two are equal.

    Example:
        >>> name_sources(["runs/classify/flowers", "birds=models/1"])
        [Source(name='flowers', place='runs/classify/flowers'), Source(name='birds', place='models/1')]
    """
    if not words:
        raise VitrailError("No model was given: vitrail serve MODEL, such as a model folder or a run folder.")
    found = [_named(word) for word in words]
    names = [each.name for each in found]
    for name in names:
        if not _NAME.fullmatch(name):
            raise VitrailError(f"{name!r} is no name for a route. Give one: NAME=SOURCE")
        if names.count(name) > 1:
            raise VitrailError(f"Two models are called {name}. Give names: one=SOURCE two=SOURCE")
    return found


def _named(word: str) -> Source:
    found = re.match(rf"({_NAME.pattern})([=:])(?=.)", word)
    if found is None or Path(word).exists():
        return Source(_name_of(word), word)
    name, sign = found.groups()
    rest = word[found.end() :]
    if sign == ":" and (name == "hf" or (len(name) == 1 and rest[0] in "\\/")):  # the hub, or a drive of Windows
        return Source(_name_of(word), word)
    return Source(name, rest)


def _name_of(source: str) -> str:
    parts = [part for part in Path(source.partition("@")[0]).parts if part.lower() not in _SKIPPED]
    name = Path(parts[-1]).name if parts else source
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def split_settings(words: Iterable[str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return settings `NAME.option=value` by model and option; without a name a setting is for the only model.

    Raises:
        VitrailError: a setting has another form, or there is no such model.

    Example:
        >>> split_settings(["flowers.top=3"], ["flowers", "birds"])
        {'flowers': {'top': '3'}, 'birds': {}}
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for word in words:
        key, sign, value = word.partition("=")
        name, dot, option = key.rpartition(".")
        if not sign or not option or (not dot and len(names) > 1):
            raise VitrailError(f"--set {word}: give MODEL.option=value.")
        if (name or names[0]) not in found:
            raise unknown("model", name, names)
        found[name or names[0]][option] = value
    return found


def open_models(
    sources: Sequence[Source], weights: str | None, device: str, settings: Mapping[str, Any], limits: "Limits"
) -> list["ServedModel"]:
    """Return the models of sources, ready to be served.

    Args:
        sources: names and places.
        weights: checkpoint of the only source, if that is a name in the catalogue.
        device: such as `auto`.
        settings: `common` options of all models, and `own` options by name, as text.
        limits: limits of the server.

    Raises:
        VitrailError: there is no such model or option.
    """
    from vitrail.inference.model_loading import find_model, task_of
    from vitrail.serving.card import find_run
    from vitrail.serving.request_options import set_options
    from vitrail.serving.served_model import ServedModel
    from vitrail.tasks import find_options

    if weights is not None and len(sources) > 1:
        raise VitrailError("--weights is for one model; give the others as folders.")
    served = []
    for source in sources:
        model = find_model(source.place, weights, device)
        options = find_options(task_of(model)).PredictOptions(**settings["common"])
        served.append(ServedModel(source.name, model, set_options(options, settings["own"][source.name]), limits))
        served[-1].run = find_run(Path(source.place))
    return served
