"""Symbolic sizes that are compared by the sizes of the trace, instead of by algebra.

While a program is exported, PyTorch compares symbolic sizes thousands of times (is a map contiguous, do two shapes
broadcast), and tries to prove each answer for all sizes with a computer algebra system. A size after four stages of
windows is a quotient of quotients, so the proofs take most of the time: minutes for a Swin. Here

- each comparison is decided by the sizes of the traced images, and no guard is written;
- a size computed from others gets a name of its own, so that expressions do not grow from stage to stage. The program
  itself computes sizes by its own nodes, which do not change.

What a proof would have promised is measured: `verify` runs the program on other sizes. A traced size of 1 is treated
as the constant 1 (it broadcasts), so `trace_size` avoids it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import sympy
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

_HOOKS = ("evaluate_expr", "_maybe_evaluate_static", "add_backed_var_to_val", "backed_var_to_val")
_PLAIN = 3
"""Most terms of a size without a name of its own, such as `49 * B * G`."""


@contextmanager
def compare_by_traced_sizes() -> Iterator[None]:
    """Decide comparisons of symbolic sizes by the traced ones inside the block.

    The functions that are replaced belong to PyTorch's internals. In a version without them nothing is replaced, and
    export is slow.

    Example:
        >>> from torch.export import Dim, export
        >>> import torch
        >>> with compare_by_traced_sizes():
        ...     program = export(torch.nn.ReLU(), (torch.zeros(2, 3),), dynamic_shapes=((Dim.DYNAMIC, None),))
        >>> program.module()(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    if not compares_by_traced_sizes():
        yield
        return
    environment: Any = ShapeEnv
    node: Any = SymNode
    before = environment.evaluate_expr, environment._maybe_evaluate_static, node.__init__
    environment.evaluate_expr = _by_value(before[0])
    environment._maybe_evaluate_static = _only_constants(before[1])
    node.__init__ = _named(before[2])
    try:
        yield
    finally:
        environment.evaluate_expr, environment._maybe_evaluate_static, node.__init__ = before


def compares_by_traced_sizes() -> bool:
    """Return whether this version of PyTorch has the functions that `compare_by_traced_sizes` replaces."""
    environment: Any = ShapeEnv
    return all(hasattr(environment, name) or hasattr(environment(), name) for name in _HOOKS)


def _by_value(prove: Any) -> Any:
    """Return an `evaluate_expr` that substitutes the traced sizes; sizes that are data have none."""
    known: dict[Any, Any] = {}

    @wraps(prove)  # with its cache's methods
    def evaluate_expr(self: Any, expr: Any, hint: Any = None, *args: Any, **options: Any) -> Any:
        if hint is None:
            if not expr.free_symbols <= self.backed_var_to_val.keys():
                return prove(self, expr, hint, *args, **options)
            key = id(self), expr
            if key not in known:
                known[key] = expr.xreplace(self.backed_var_to_val)
            hint = known[key]
        return sympy.sympify(hint)

    return evaluate_expr


def _only_constants(simplify: Any) -> Any:
    """Return a `_maybe_evaluate_static` that proves nothing about sizes of the inputs."""

    @wraps(simplify)
    def evaluate(self: Any, expr: Any, **options: Any) -> Any:
        symbols = expr.free_symbols
        if symbols and symbols <= self.backed_var_to_val.keys():
            return expr.xreplace(self.backed_var_to_val) if options.get("compute_hint") else None
        return simplify(self, expr, **options)

    return evaluate


def _named(construct: Any) -> Any:
    """Return a constructor of size nodes that replaces long expressions by a name."""
    names: dict[Any, Any] = {}

    def init(self: Any, expr: Any, shape_env: Any, pytype: type, hint: Any, *args: Any, **options: Any) -> None:
        if pytype is int and type(hint) is int and shape_env is not None and not _is_plain(expr):
            key = id(shape_env), expr
            if key not in names:
                names[key] = _name(shape_env, hint)
            expr = names[key]
        construct(self, expr, shape_env, pytype, hint, *args, **options)

    return init


def _is_plain(expr: Any) -> bool:
    """Return whether a size is a symbol, a number, or a sum or product of a few of them."""
    if not isinstance(expr, sympy.Expr) or expr.is_Atom or not expr.free_symbols:
        return True
    return (expr.is_Add or expr.is_Mul) and len(expr.args) <= _PLAIN and all(each.is_Atom for each in expr.args)


def _name(shape_env: Any, value: int) -> Any:
    symbol = sympy.Symbol(f"size{len(shape_env.backed_var_to_val)}", integer=True)
    shape_env.add_backed_var_to_val(symbol, value)
    shape_env.var_to_range[symbol] = ValueRanges(0 if value >= 0 else -int_oo, int_oo)
    return symbol
