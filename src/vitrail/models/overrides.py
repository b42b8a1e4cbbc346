"""Overrides of config fields by the user: type conversion and validation."""

from collections.abc import Mapping
from typing import Any

from vitrail.errors import VitrailError, unknown


def checked(overrides: Mapping[str, Any], published: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values as the config of variant `name` would hold them.

    Raises:
        VitrailError: if a field is unknown, or a size is no whole number from 1 up.
    """
    for field, value in overrides.items():
        if field not in published:
            raise unknown(f"field of {name}", field, published)
        check_size(field, value, published[field])
    return {field: same_kind(value, published[field]) for field, value in overrides.items()}


def same_kind(value: object, published: object) -> object:
    """Convert a value to the type of the published one: lists to tuples, dicts to pairs, 0 to 0.0 for floats."""
    if isinstance(value, dict) and isinstance(published, tuple):
        return tuple(sorted(value.items()))
    if isinstance(value, list | tuple) and isinstance(published, tuple):
        real = any(isinstance(each, float) for each in published)
        return tuple(float(each) if real and type(each) is int else each for each in value)
    if isinstance(value, list):
        return tuple(value)
    return float(value) if isinstance(published, float) and type(value) is int else value


def check_size(field: str, value: Any, published: object) -> None:
    """Check that a value is a size if the published variant has one (or several) in that field."""
    several = isinstance(published, tuple)
    if type(published[0] if published and several else published) is not int:
        return
    optional = published == 0 or (several and 0 in published)  # a published 0 is a number of optional parts
    smallest = 0 if field == "num_classes" or optional else 1
    fits = isinstance(value, list | tuple) == several
    if not fits or not all(type(n) is int and n >= smallest for n in (value if several else [value])):
        if field == "image_size" and isinstance(value, list | tuple):
            raise VitrailError(
                f"image_size is one number, the side of a square; got {value!r}. Published: {published}."
            )
        kind = "whole numbers" if several else "a whole number"
        raise VitrailError(f"{field} needs {kind} from {smallest} up, got {value!r}. Published: {published}.")
