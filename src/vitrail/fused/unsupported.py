"""What is said by a form that cannot be had."""

from torch import nn

from vitrail.native.build import missing


class NotConverted(Exception):
    """This module stays as it is; the message says why."""


def require_libraries(*libraries: str) -> None:
    """Build the compiled libraries of a form, where they are not there yet.

    Raises:
        NotConverted: one of them cannot be had here.
    """
    reason = missing(*libraries)
    if reason is not None:
        raise NotConverted(reason)


def check_exact_type(kind: type[nn.Module], *layers: nn.Module) -> None:
    """See to it that layers are of exactly this kind: one derived from it, such as an adapter, computes something else.

    Raises:
        NotConverted: one of them is not.
    """
    for layer in layers:
        if type(layer) is not kind:
            raise NotConverted(f"{type(layer).__name__} in it is not {kind.__name__}")


def has_hooks(*modules: nn.Module) -> bool:
    """Say whether somebody wants to be told when one of these modules, or a part of one, is called."""
    parts = [part for module in modules for part in module.modules()]
    return any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in parts)


def copy_hooks(form: nn.Module, module: nn.Module) -> nn.Module:
    """Give a form the hooks of the module in whose place it is called, with the same arguments and answer."""
    for name in [name for name in vars(module) if name.startswith(("_forward_hooks", "_forward_pre_hooks"))]:
        setattr(form, name, getattr(module, name))
    return form
