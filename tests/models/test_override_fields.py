"""The fields that editors complete in `create_model(...)` are those of the configs.

After a new field: `python tests/models/test_override_fields.py` writes the file again.
"""

import inspect
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from vitrail.models import FAMILIES, create_model, override_fields
from vitrail.models.override_fields import ModelFields

HEAD = '''"""Fields of the configs as keywords of `create_model`, for editors and type checkers.

Written from the configs of all architectures by `python tests/models/test_override_fields.py`; the comment names one or
two of those that have the field.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vitrail.point_sampling import PointSampling
from vitrail.preprocess import Preprocess


class ModelFields(TypedDict, total=False):
    """Overrides of a published variant; which of them it has is checked when it is built."""

    image_size: int  # every family of images: side of the square
'''


def shown(hint: Any) -> set[str]:
    """Return a hint as the types that a user may give: sequences for tuples."""
    if isinstance(hint, UnionType):
        return {name for each in get_args(hint) for name in shown(each)}
    if hint is NoneType:
        return {"None"}
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        if get_origin(inner) is tuple and get_args(inner)[1:] == (object,):
            return {"Mapping[str, Any]"}
        return {f"Sequence[{' | '.join(sorted(shown(inner)))}]"}
    return {hint.__name__}


def text() -> str:
    """Return the file."""
    types: dict[str, set[str]] = {}
    owners: dict[str, list[str]] = {}
    for family in FAMILIES:
        for kind in dict.fromkeys(
            type(config) for config in import_module(f"vitrail.models.{family}").VARIANTS.values()
        ):
            hints = get_type_hints(kind)
            for field in fields(kind):
                types.setdefault(field.name, set()).update(shown(hints[field.name]))
                owners.setdefault(field.name, []).append(family)
    lines = []
    for name, kinds in types.items():
        hint = " | ".join(sorted(kinds, key=lambda kind: (kind == "None", kind)))
        known = list(dict.fromkeys(owners[name]))
        few = ", ".join(known[:2]) + (f" and {len(known) - 2} more" if len(known) > 2 else "")
        lines.append(f"    {name}: {hint}  # {few}")
    return HEAD + "\n".join(lines) + "\n"


def test_the_file_is_that_of_the_configs() -> None:
    assert Path(override_fields.__file__).read_text() == text()


def test_create_model_has_the_fields_as_keywords() -> None:
    overrides = inspect.signature(inspect.unwrap(create_model)).parameters["overrides"]
    assert overrides.annotation == Unpack[ModelFields]
    assert {"depth", "num_heads", "num_classes", "drop_path", "image_size"} <= set(ModelFields.__annotations__)


if __name__ == "__main__":
    Path(override_fields.__file__).write_text(text())
