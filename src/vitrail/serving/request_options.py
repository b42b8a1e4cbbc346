"""Options that a request or the command line sets for one model."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from vitrail.errors import VitrailError, unknown
from vitrail.tasks.options import PredictionOptions, Range

_NAMES = {int: "integer", float: "number", bool: "boolean"}


def describe_options(options: PredictionOptions) -> dict[str, dict[str, Any]]:
    """Return the fields that a request may set, as JSON schema.

    Example:
        >>> from vitrail.tasks.classify.options import PredictOptions
        >>> describe_options(PredictOptions())
        {'top': {'default': 5, 'type': 'integer', 'minimum': 1, 'maximum': 1000}}
    """
    hints, found = get_type_hints(type(options)), {}
    for name, bounds in options.REQUEST.items():
        found[name] = {"default": getattr(options, name), **_kind(hints[name])}
        if bounds is not None:
            found[name] |= {"minimum": bounds[0], "maximum": bounds[1]}
    return found


def _kind(hint: Any) -> dict[str, Any]:
    return {"enum": list(get_args(hint))} if get_origin(hint) is Literal else {"type": _NAMES[hint]}


def request_options(options: PredictionOptions, values: Mapping[str, Any]) -> PredictionOptions:
    """Return options with the fields of a request.

    Raises:
        VitrailError: a field cannot be set by requests, or has a value of another type or outside its bounds.

    Example:
        >>> from vitrail.tasks.classify.options import PredictOptions
        >>> request_options(PredictOptions(), {"top": 2}).top
        2
        >>> request_options(PredictOptions(), {"labels": "secrets.txt"})
        Traceback (most recent call last):
        vitrail.errors.VitrailError: Unknown option 'labels'. Valid: top.
    """
    if not values:
        return options
    schema = describe_options(options)
    for name, value in values.items():
        if name not in schema:
            raise unknown("option", name[:40], schema) if schema else VitrailError("This model has no options.")
        _check(name, value, schema[name])
    return replace(options, **values)


def _check(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    if "enum" in schema:
        if value not in schema["enum"]:
            raise VitrailError(f"{name} must be one of {', '.join(map(str, schema['enum']))}.")
    elif schema["type"] == "boolean":
        if not isinstance(value, bool):
            raise VitrailError(f"{name} must be true or false.")
    else:
        if isinstance(value, bool) or not isinstance(value, int if schema["type"] == "integer" else int | float):
            raise VitrailError(f"{name} must be of type {schema['type']}.")
        if "minimum" in schema:
            Range(name, schema["minimum"], schema["maximum"], open_high=False).check(value)


def set_options(options: PredictionOptions, words: Mapping[str, str]) -> PredictionOptions:
    """Return options with fields from the command line, whose values are read as YAML.

    Raises:
        VitrailError: there is no such field, or it does not take the value.
    """
    names = [field.name for field in fields(options)]
    for name in words:
        if name not in names:
            raise unknown("option", name, names)
    try:
        values = {name: yaml.safe_load(text) for name, text in words.items()}
        return replace(options, **values)
    except (TypeError, yaml.YAMLError) as error:
        raise VitrailError(f"--set cannot be read: {str(error).splitlines()[0]}") from error
