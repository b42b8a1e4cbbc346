"""What becomes of modules of one type: who makes their fast form, and which compiled libraries it calls."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import nn

from vitrail.fused.unsupported import require_libraries


class Conversion(NamedTuple):
    """The fast form of a type.

    Args:
        make: from the module (of a branch: its norm, mixer and scale) and a precision to what takes its place; raises
            `NotConverted` where it cannot.
        libraries: what it calls beside the products, by name; see `native.build`.
    """

    make: Callable[..., nn.Module]
    libraries: tuple[str, ...] = ()

    def of(self, *given: object) -> nn.Module:
        """Make it.

        Raises:
            NotConverted: it cannot be made of these, or a library cannot be built.
        """
        require_libraries(*self.libraries)
        return self.make(*given)


Conversions = Mapping[type[nn.Module], Conversion]
"""The form of each module of exactly this type."""


def libraries_of(model: nn.Module, forms: Iterable[Conversions]) -> list[str]:
    """Name the compiled libraries that the forms of a model's parts call, that of products first.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU())
        >>> known = {nn.Conv2d: Conversion(nn.Identity, ("convolution",)), nn.ReLU: Conversion(nn.Identity, ("x",))}
        >>> libraries_of(model, [known])
        ['products', 'convolution']
    """
    kinds = {type(module) for module in model.modules()}
    names = {name for known in forms for kind, form in known.items() if kind in kinds for name in form.libraries}
    return ["gemm", *sorted(names - {"gemm"})]
