"""Sizes of a traced program in a form that `torch.export.load` reads.

A file holds the sizes of each tensor as expressions, and `load` computes with them. It knows the range of a symbol only
if the program states it, and its traced value only if an expression is that symbol alone. So in a program to be saved
each size that is computed from others is one symbol, and the range of each symbol is stated.
"""

from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from vitrail.export.traced_sizes import compare_by_traced_sizes, compares_by_traced_sizes


def store_sizes(exported: ExportedProgram) -> None:
    """Replace computed sizes in the metadata of a program by symbols of their own, in place; its nodes do not change.

    Example:
        >>> from torch.export import Dim, export
        >>> with compare_by_traced_sizes():
        ...     program = export(torch.nn.Flatten(), (torch.zeros(2, 3, 4),), dynamic_shapes=({1: Dim.DYNAMIC},))
        >>> store_sizes(program)
        >>> len(program.range_constraints)
        2
    """
    if not compares_by_traced_sizes():
        return  # sizes are PyTorch's own expressions of the inputs
    stored = _Stored(exported.range_constraints)
    with compare_by_traced_sizes():
        for module in exported.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
                if node.op != "placeholder" and "val" in node.meta:
                    node.meta["val"] = stored.value(node.meta["val"])


class _Stored:
    """Values of nodes with stored sizes.

    Args:
        ranges: range of each symbol; those of new symbols are added.
    """

    def __init__(self, ranges: dict[Any, Any]):
        self.ranges, self.names = ranges, dict[Any, Any]()

    def value(self, value: Any) -> Any:
        """Return the value of a node: a tensor, a size, or several of them."""
        if isinstance(value, tuple | list):
            return type(value)(self.value(each) for each in value)
        if isinstance(value, torch.SymInt):
            return self.size(value)
        sizes = (*value.shape, *value.stride()) if isinstance(value, Tensor) else ()
        if all(type(size) is int for size in sizes):
            return value
        fake: Any = value
        with fake.fake_mode:
            shape, strides = ([self.size(each) for each in part] for part in (value.shape, value.stride()))
            like = {"dtype": value.dtype, "device": value.device, "requires_grad": value.requires_grad}
            return torch.empty_strided(shape, strides, **like)

    def size(self, size: Any) -> Any:
        """Return a size that is a number or one symbol, whose range is stated."""
        node: Any = size.node if isinstance(size, torch.SymInt) else None
        if node is None or node.hint is None or not node.expr.free_symbols:
            return size  # a number, or a size that is data
        expr, hint, environment = node.expr, node.hint, node.shape_env
        if not expr.is_Symbol:
            if expr not in self.names:
                self.names[expr] = sympy.Symbol(f"stored{len(self.names)}", integer=True)
                environment.add_backed_var_to_val(self.names[expr], hint)
            expr = self.names[expr]
        self.ranges.setdefault(expr, ValueRanges(0 if hint >= 0 else -int_oo, int_oo))
        return environment.create_symintnode(expr, hint=hint)
