"""The one walk over a model that replaces modules: CPU inference, CUDA inference and training use it."""

from collections.abc import Callable

from torch import nn

Convert = Callable[[nn.Module], nn.Module | None]
"""From a module to its replacement, which is not entered; None to keep the module and enter its children."""


def replace_modules(parent: nn.Module, convert: Convert) -> None:
    """Replace the children of a module, and theirs, in place.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
        >>> replace_modules(model, lambda module: nn.GELU() if type(module) is nn.ReLU else None)
        >>> [type(module).__name__ for module in model.modules()]
        ['Sequential', 'Sequential', 'GELU', 'GELU']
    """
    for name, child in list(parent.named_children()):
        new = convert(child)
        if new is None:
            replace_modules(child, convert)
        elif new is not child:
            setattr(parent, name, new)
