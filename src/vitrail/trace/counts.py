"""Parameters and multiply-adds of frames: every number is given out once."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.inference.cost import multiply_adds
from vitrail.trace.record import Call


class Counts:
    """Numbers of a model by module, handed out to frames.

    Args:
        model: the model.
        root: the recorded calls.
    """

    def __init__(self, model: nn.Module, root: Call):
        self.parameters = Counter[str]()
        for name, parameter in model.named_parameters():
            self.parameters[name.rpartition(".")[0]] += parameter.numel()
        self.calls = Counter(call.path for call in root.walk())
        self._taken: set[int] = set()
        self.macs, self.reason = _macs(model, root.args)
        self.total_parameters = sum(self.parameters.values())
        self.total_macs = None if self.macs is None else sum(self.macs.values())

    def take(self, call: Call, *paths: str) -> tuple[int, int | None]:
        """Return parameters and multiply-adds below these modules that nothing has taken yet.

        Multiply-adds of a module that runs several times are shared out evenly among its calls.

        Args:
            call: the call whose part of the tree is counted.
            paths: names of modules; by default that of the call.
        """
        paths = paths or (call.path,)
        found = [path for path in self.parameters if _below(path, paths)]
        return sum(self.parameters.pop(path) for path in found), self._macs(call, paths)

    def _macs(self, call: Call, paths: tuple[str, ...]) -> int | None:
        if self.macs is None:
            return None
        new = [each for each in call.walk() if _below(each.path, paths) and id(each) not in self._taken]
        self._taken.update(id(each) for each in new)
        return sum(self.macs.get(each.path, 0) // self.calls[each.path] for each in new)

    def own_macs(self, call: Call) -> int:
        """Return multiply-adds of a call itself that nothing has taken."""
        return 0 if self.macs is None or id(call) in self._taken else self.macs.get(call.path, 0)


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(not prefix or path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def _macs(model: nn.Module, args: tuple[Any, ...]) -> tuple[dict[str, int] | None, str]:
    """Return multiply-adds by innermost module, or the reason why they cannot be counted."""
    inputs: list[Any] = [torch.empty_like(x, device="meta") if isinstance(x, Tensor) else x for x in args]
    try:
        return multiply_adds(model, inputs, "all"), ""
    except (VitrailError, NotImplementedError, RuntimeError) as error:
        return None, str(error).partition("\n")[0]
