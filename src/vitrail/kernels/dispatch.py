"""Dispatch of operations: the first backend that supports the arguments runs.

A backend returns why it cannot run, from facts of the tensors (device, dtype, shape, gradient), or None.
No environment variable, no global switch: the same call on the same tensors always takes the same way, and `explain`
prints it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vitrail.errors import VitrailError


class Backend(NamedTuple):
    """One way to compute an operation.

    Args:
        name: in `explain` and `vitrail doctor`.
        run: computes the operation.
        unsupported_reason: takes the same arguments as `run`; returns why it cannot run, or None.
    """

    name: str
    run: Callable[..., Any]
    unsupported_reason: Callable[..., str | None]


class Op:
    """An operation with several backends, best first; the last one is the reference, which supports all arguments.

    Example:
        >>> double = Op("double", [Backend("add", lambda x: x + x, lambda x: None)])
        >>> double(2)
        4
        >>> double.explain(2)
        [('add', None)]
    """

    def __init__(self, name: str, backends: Sequence[Backend]):
        self.name = name
        self.backends = tuple(backends)

    def __call__(self, *args: object) -> Any:
        for backend in self.backends:
            if backend.unsupported_reason(*args) is None:
                return backend.run(*args)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.explain(*args))
        raise VitrailError(f"No backend of '{self.name}' can run these tensors ({reasons}).")

    def explain(self, *args: object) -> list[tuple[str, str | None]]:
        """Return each backend with the reason why it cannot run, or None if it can."""
        return [(backend.name, backend.unsupported_reason(*args)) for backend in self.backends]
