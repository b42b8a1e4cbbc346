"""The interface of an edit, and how a list of them is applied, written and replayed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from torch import nn

from vitrail.edits import EDITS
from vitrail.errors import DataError, VitrailError, unknown
from vitrail.parts.model import Model

Kind = TypeVar("Kind", bound=Model)
"""Class of a model, which an edit keeps."""


class Edit(ABC):
    """A change of a built model: heads removed, blocks dropped, layers factorized.

    A subclass is a frozen dataclass of plain values (numbers, strings, lists and mappings of them), in a file of this
    room, with a row in `EDITS`. It checks everything that can be wrong before it changes the model.

    Attributes:
        kind: name in `EDITS`.
    """

    kind: ClassVar[str]

    @abstractmethod
    def apply(self, model: Model) -> None:
        """Change a model in place, its weights with it.

        Raises:
            VitrailError: the model has no such part, or the part cannot be changed like that; it is unchanged.
        """

    def rebuild(self, model: Model) -> None:
        """Change the shapes of a model whose tensors are filled afterwards; by default this is `apply`."""
        self.apply(model)

    @abstractmethod
    def summary(self) -> str:
        """Return the edit in a few words, for the model card."""


def apply_edits(model: Model, *edits: Edit) -> Model:
    """Apply edits in order, record each in `model.edits`, and return the model.

    Example:
        >>> from vitrail.edits.blocks import DropBlocks
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=3)
        >>> model = apply_edits(model, DropBlocks({"backbone.stages.0": [0, 2]}))
        >>> len(model.backbone.stages[0].blocks), model.edits[0].summary()
        (2, 'blocks dropped: 2 left in backbone.stages.0')
    """
    for edit in edits:
        edit.apply(model)
        model.edits = (*model.edits, edit)
    return model


def replay(model: Kind, edits: Iterable[Edit]) -> Kind:
    """Give a fresh model the shapes that edits left, for tensors that are loaded afterwards."""
    for edit in edits:
        edit.rebuild(model)
        model.edits = (*model.edits, edit)
    return model


def edits_to_json(edits: Iterable[Edit]) -> list[dict[str, Any]]:
    """Return edits as plain values for a JSON file.

    Example:
        >>> from vitrail.edits.blocks import DropBlocks
        >>> edits_to_json([DropBlocks({"backbone.stages.0": [0]})])
        [{'edit': 'drop_blocks', 'keep': {'backbone.stages.0': (0,)}}]
    """
    return [{"edit": edit.kind, **asdict(edit)} for edit in edits]  # pyright: ignore[reportArgumentType]


def edits_from_json(values: object, origin: str = "the list of edits") -> tuple[Edit, ...]:
    """Read what `edits_to_json` wrote.

    Raises:
        DataError: it is no such list, or an edit has a wrong value.
        VitrailError: an edit is not known here.

    Example:
        >>> edits_from_json([])
        ()
    """
    if not isinstance(values, list) or not all(isinstance(value, dict) and "edit" in value for value in values):
        raise DataError(f"{origin}: edits must be a list of objects, each with its name as 'edit'.")
    return tuple(_read(value, origin) for value in values)


def _read(value: Mapping[str, Any], origin: str) -> Edit:
    name, given = str(value["edit"]), {key: item for key, item in value.items() if key != "edit"}
    if name not in EDITS:
        raise unknown("edit", name, EDITS, hint=f"{origin} states it; a newer version of Vitrail may know it.")
    kind: Any = import_module(f"vitrail.edits.{EDITS[name]}").EDIT
    expected = {field.name for field in fields(kind)}
    if given.keys() != expected:
        raise DataError(f"{origin}: the edit {name} has the fields {sorted(given)}; needed: {sorted(expected)}.")
    try:
        return kind(**given)
    except VitrailError as error:
        raise DataError(f"{origin}: the edit {name} is wrong: {error}") from error


def submodule(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its name.

    Raises:
        VitrailError: there is none; the message has the nearest names.

    Example:
        >>> submodule(nn.Sequential(nn.ReLU(), nn.Linear(1, 1)), "1")
        Linear(in_features=1, out_features=1, bias=True)
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise unknown("part of the model", name, [known for known in modules if known])
    return modules[name]


def index_lists(value: object) -> dict[str, tuple[int, ...]]:
    """Check and freeze a mapping from module names to ascending indices.

    Raises:
        VitrailError: it is something else, or a list is empty.

    Example:
        >>> index_lists({"a": [0, 2]})
        {'a': (0, 2)}
    """
    if not isinstance(value, Mapping) or not value:
        raise VitrailError(f"Got {value!r}; a mapping from names of modules to lists of indices is needed.")
    return {str(name): _ascending(str(name), indices) for name, indices in value.items()}


def _ascending(name: str, indices: Any) -> tuple[int, ...]:
    given = isinstance(indices, Sequence) and not isinstance(indices, str) and len(indices) > 0
    if not given or any(type(index) is not int or index < 0 for index in indices):
        raise VitrailError(f"{name}: got {indices!r}; a list of whole numbers from 0 up is needed, at least one.")
    if list(indices) != sorted(set(indices)):
        raise VitrailError(f"{name}: the indices {list(indices)[:8]} must ascend, each once.")
    return tuple(indices)
