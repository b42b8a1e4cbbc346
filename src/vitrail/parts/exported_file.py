"""Models of exported files: a program computes the outputs of their task, and they have no layers or weights."""

from vitrail.errors import VitrailError


def exported_file(model: object) -> str:
    """Return the path of the exported file that a model runs, or an empty string if it has layers of its own.

    Example:
        >>> from torch import nn
        >>> exported_file(nn.Linear(1, 1))
        ''
    """
    return getattr(model, "exported_file", "")


def check_layers(model: object, need: str) -> None:
    """Refuse an exported file for work on layers or weights.

    Args:
        model: a model.
        need: what the work needs, such as `its layers are needed to draw heatmaps`.

    Raises:
        VitrailError: the model is an exported file.

    Example:
        >>> from torch import nn
        >>> check_layers(nn.Linear(1, 1), "its layers are needed")
    """
    if file := exported_file(model):
        raise outputs_alone(file, need)


def outputs_alone(file: str, need: str) -> VitrailError:
    """Return the error of an exported file for work on layers or weights.

    Example:
        >>> print(outputs_alone("m.onnx", "its layers are needed to draw heatmaps"))
        m.onnx holds the outputs of its task alone, and its layers are needed to draw heatmaps.
        Use the model folder that it was exported from.
    """
    return VitrailError(
        f"{file} holds the outputs of its task alone, and {need}.\nUse the model folder that it was exported from."
    )
