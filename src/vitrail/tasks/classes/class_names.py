"""Class names: given by the user, of the model, of ImageNet, or numbers."""

from collections.abc import Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path

from torch import nn

from vitrail.errors import DataError, VitrailError


def class_names(
    model: nn.Module, classes: int, given: Sequence[str] | str | PathLike[str] | None = None
) -> tuple[str, ...]:
    """Return a name for each class of a model.

    In this order: the given names, the names in the model, those of ImageNet for 1000 classes without names (published
    checkpoints contain none), and plain numbers.

    Args:
        model: the model.
        classes: number of its classes.
        given: names, or a text file with one per line.

    Raises:
        VitrailError: the number of names is not the number of classes.
    """
    names = read_names(given) if isinstance(given, str | PathLike) else given
    if names is None:
        names = getattr(model, "labels", None)
    if names is None:
        return _imagenet() if classes == 1000 else tuple(f"class {i}" for i in range(classes))
    if len(names) != classes:
        raise VitrailError(
            f"Got {len(names)} class names for a model of {classes} classes. Give one a class, in order."
        )
    return tuple(names)


def _imagenet() -> tuple[str, ...]:
    """Return torchvision's names of the ImageNet classes, in index order."""
    weights = import_module("torchvision.models").get_weight("ViT_B_16_Weights.IMAGENET1K_V1")
    return tuple(weights.meta["categories"])


def read_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Read class names from a text file with one per line.

    Raises:
        VitrailError: there is no such file.
        DataError: it is not text.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("ant\\nbee\\n"), file.flush()
        ...     read_names(file.name)
        ('ant', 'bee')
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise VitrailError(f"There is no file of class names at {path}. It holds one name a line.") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"{path} is not a text file in UTF-8: class names stand there one a line.") from error
    return tuple(line.strip() for line in (lines[:-1] if lines[-1] == "" else lines))
