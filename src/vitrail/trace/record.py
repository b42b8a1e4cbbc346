"""Recording of a forward pass: the calls of all modules as a tree."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.exported_file import check_layers
from vitrail.tasks.inference import evaluating


@dataclass
class Call:
    """One call of a module.

    Args:
        path: name of the module in the model; empty for the model itself.
        module: the module.
        args: its positional and named arguments.
        output: its result.
        children: the calls that it made, in order.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...] = ()
    output: object = None
    children: list["Call"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self.module).__name__

    @property
    def x(self) -> Tensor | None:
        """The first tensor among the arguments."""
        return next(tensors(self.args), None)

    @property
    def y(self) -> Tensor | None:
        """The first tensor of the result."""
        return next(tensors(self.output), None)

    @property
    def grid(self) -> Grid | None:
        """Grid of the result, or else of the arguments."""
        return grid_of(self.output) or grid_of(self.args)

    def walk(self) -> Iterator["Call"]:
        """Yield this call and all calls below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def child(self, name: str) -> "Call | None":
        """Return the last call of a child module by its name in this module."""
        path = f"{self.path}.{name}" if self.path else name
        return next((each for each in reversed(self.children) if each.path == path), None)


def tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists and dicts, in order.

    Example:
        >>> len(list(tensors({"a": [torch.zeros(1)], "b": (torch.ones(1), None)})))
        2
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)


def grid_of(value: object) -> Grid | None:
    """Return the first grid of a tuple, if it has one.

    Example:
        >>> from vitrail.grid import Grid
        >>> grid_of((torch.zeros(1), Grid(2, 3)))
        Grid(h=2, w=3, prefix=0)
    """
    if isinstance(value, Grid):
        return value
    if isinstance(value, tuple | list):
        return next((found for each in value if (found := grid_of(each))), None)
    return None


@torch.no_grad()
def record(model: nn.Module, *inputs: object) -> Call:
    """Run a model in evaluation mode and return the tree of its calls.

    Hooks are removed afterwards, also after an error, and the training mode is restored. All tensors of the pass stay
    in memory as long as the tree.

    Args:
        model: any module.
        inputs: its arguments.

    Example:
        >>> root = record(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))
        >>> [(call.path, call.name) for call in root.walk()]
        [('', 'Sequential'), ('0', 'Linear'), ('1', 'ReLU')]
    """
    check_layers(model, "a trace shows its layers")
    root = Call("", model)
    stack = [root]
    entered: list[bool] = []

    def enter(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            call = root if not path and not entered else Call(path, module)
            entered.append(True)
            call.args = (*args, *named.values())
            if call is not root:
                stack[-1].children.append(call)
                stack.append(call)

        return hook

    def leave(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        call = stack[-1]
        call.output = output
        if call is not root:
            stack.pop()

    with ExitStack() as hooks, evaluating(model):
        for path, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(enter(path), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        model(*inputs)
    return root
