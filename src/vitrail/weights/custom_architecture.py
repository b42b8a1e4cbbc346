"""Custom architectures: the name of the user's file is saved with the model.

Only its name is saved, never its path or its code: a path is not portable, and no saved file may name code to run.
"""

import os
from pathlib import Path

from vitrail import models
from vitrail.errors import VitrailError
from vitrail.models.custom import VARIABLE


def own_file(variant: str) -> str | None:
    """Return the name of the user's file that holds a variant, or None for a variant of the library.

    Example:
        >>> own_file("vit_tiny_patch16_224") is None
        True
    """
    place = Path(str(models.find(variant).__file__))
    return None if place.parent == Path(str(models.__file__)).parent else place.name


def need_own_file(variant: str, file: object, place: Path) -> None:
    """Raise an error that names the required file if the architecture of a saved model is not available.

    Args:
        variant: name of the model.
        file: the saved name of the user's file; None if there was none.
        place: the model folder.

    Raises:
        VitrailError: the variant is unknown here.
    """
    try:
        models.find(variant)
    except VitrailError as error:
        named = {Path(path).name for path in os.environ.get(VARIABLE, "").split(os.pathsep)}
        if not isinstance(file, str) or file in named:
            raise
        raise VitrailError(
            f"{place} holds {variant}, whose architecture is in the file {file}, which is not named here.\n"
            f"Name it in the variable {VARIABLE}, for example: {VARIABLE}=path/to/{file} vitrail ..."
        ) from error
