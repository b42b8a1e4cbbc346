"""Reasons why a module is not converted."""

from collections.abc import Collection, Mapping

from torch import nn

from vitrail.native.build import missing

Seats = Mapping[str, tuple[type[nn.Module], ...]]
"""Child modules of a type, and the exact types of each that fused code computes."""


class NotConverted(Exception):
    """Raised if a module has no fused operation; the message is the reason."""


def parts_unsupported_reason(
    module: nn.Module, seats: Seats, called: Collection[str] = (), own: Collection[str] = ()
) -> str | None:
    """Return why fused code does not compute the parts of a module, or None.

    Fused code reads weights out of a module and does not call it, so everything that a call would run must be known:
    each child by name and exact type (a subclass, such as an adapter, computes something else), no other parameter of
    its own, no hook, no `forward` set on the instance.

    Args:
        module: module to convert.
        seats: its known children.
        called: children that the operation calls as they are, of any type.
        own: names of its own parameters, which fused code reads.

    Example:
        >>> parts_unsupported_reason(nn.Sequential(nn.ReLU()), {"0": (nn.ReLU,)})
        >>> parts_unsupported_reason(nn.Sequential(nn.ReLU()), {"0": (nn.GELU,)})
        'its 0 is ReLU'
        >>> parts_unsupported_reason(nn.Sequential(nn.ReLU(), nn.ReLU()), {"0": (nn.ReLU,)})
        'unknown part 1'
    """
    children = module._modules
    if children.keys() != seats.keys():
        return "unknown part " + ", ".join(sorted(children.keys() ^ seats.keys()))
    if module._parameters.keys() != set(own) or module._buffers:
        return "unknown part " + ", ".join(sorted([*(module._parameters.keys() ^ set(own)), *module._buffers]))
    if _is_observed(module):
        return f"{type(module).__name__} has hooks or a forward of its own"
    for name, child in children.items():
        if name in called:
            continue
        if child is None or type(child) not in seats[name]:
            return f"its {name} is {type(child).__name__}"
        if has_hooks(child) if child._modules else _is_observed(child):
            return f"its {name} has hooks or a forward of its own"
    return None


def check_parts(module: nn.Module, seats: Seats, called: Collection[str] = ()) -> None:
    """Check a module by `parts_unsupported_reason`.

    Raises:
        NotConverted: it has parts that fused code does not compute.
    """
    reason = parts_unsupported_reason(module, seats, called)
    if reason is not None:
        raise NotConverted(reason)


def require_libraries(*libraries: str) -> None:
    """Build native libraries that are not built yet.

    Raises:
        NotConverted: one of them cannot be built here.
    """
    reason = missing(*libraries)
    if reason is not None:
        raise NotConverted(reason)


def has_hooks(*modules: nn.Module) -> bool:
    """Return whether calling one of these modules, or a part, runs a hook or a `forward` set on the instance."""
    return any(_is_observed(part) for module in modules for part in module.modules())


def _is_observed(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def copy_hooks(fused: nn.Module, module: nn.Module) -> nn.Module:
    """Give a fused module the forward hooks of the module that it replaces: arguments and result are the same."""
    for name in [name for name in vars(module) if name.startswith(("_forward_hooks", "_forward_pre_hooks"))]:
        setattr(fused, name, getattr(module, name))
    return fused
