"""Inputs of a model: the value that turns raw data into tensors, saved as a file of its own."""

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any, ClassVar, Self


class ModelInputs(ABC):
    """Base of values that turn raw data into the inputs of a model: `Preprocess`, `Vocabulary`.

    A model folder holds such a value as one file. A new kind of input is a subclass, given to its models as a field of
    their config or as `Model.inputs_type`; saving and loading need no change.

    Attributes:
        file: name of the file in a model folder.
    """

    file: ClassVar[str]

    @abstractmethod
    def to_text(self) -> str:
        """Return the content of the file, the same for equal values."""

    @classmethod
    @abstractmethod
    def from_text(cls, text: str) -> Self:
        """Read the content of such a file.

        Raises:
            DataError: it cannot be read; the message names the file.
        """

    def facts(self) -> dict[str, str]:
        """Return rows for the table of the model card, by title."""
        return {}


def inputs_in(config: Any) -> dict[str, ModelInputs]:
    """Return the fields of a model's config that hold its inputs, such as `preprocess`; at most one.

    Example:
        >>> from vitrail.models import make_config
        >>> list(inputs_in(make_config("vit_tiny_patch16_224"))), list(inputs_in(make_config("gpt2")))
        (['preprocess'], [])
    """
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: value for name, value in values.items() if isinstance(value, ModelInputs)}
