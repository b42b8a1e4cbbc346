"""Conversion rule for a module type: factory, native libraries, known parts."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import nn

from vitrail.fused.unsupported import Seats, check_parts, require_libraries


class Conversion(NamedTuple):
    """How modules of one type become fused modules for CPU inference.

    Args:
        make: returns the fused module, from the module and the compute dtype (for a mixer: its norm, the mixer, its
            scale and the compute dtype); raises `NotConverted` if it cannot.
        libraries: native libraries that it calls besides `gemm`.
        seats: known children of a layer; None if they are checked elsewhere.
    """

    make: Callable[..., nn.Module]
    libraries: tuple[str, ...] = ()
    seats: Seats | None = None

    def of(self, *given: object) -> nn.Module:
        """Make the fused module.

        Raises:
            NotConverted: a part is unknown, or a library cannot be built.
        """
        if self.seats is not None:
            assert isinstance(given[0], nn.Module)
            check_parts(given[0], self.seats)
        require_libraries(*self.libraries)
        return self.make(*given)


Conversions = Mapping[type[nn.Module], Conversion]
"""The conversion of each module of exactly this type."""


def libraries_of(model: nn.Module, tables: Iterable[Conversions]) -> list[str]:
    """Return the native libraries that the fused modules of a model call, `gemm` first.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU())
        >>> known = {nn.Conv2d: Conversion(nn.Identity, ("convolution",)), nn.ReLU: Conversion(nn.Identity, ("x",))}
        >>> libraries_of(model, [known])
        ['gemm', 'convolution']
    """
    types = {type(module) for module in model.modules()}
    names = {name for table in tables for kind, rule in table.items() if kind in types for name in rule.libraries}
    return ["gemm", *sorted(names - {"gemm"})]
