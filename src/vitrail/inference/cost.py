"""Cost of a model by module: parameters, multiply-adds under a named convention, attention and activation memory.

Everything is computed on the meta device from shapes, so a model of any size and a batch of any size cost no memory.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from vitrail.errors import unknown
from vitrail.inference.flops import NothingUncounted, meta_inputs, meta_model, on_meta
from vitrail.parts.attend import Attend

CONVENTIONS = {
    "all": "products of layers and of attention (this library, timm, torchvision)",
    "layers": "without the products of attention (mmpretrain's Swin and Twins, the authors' Twins)",
    "norms": "all, and norms: 5 per element, 2 of a BatchNorm (fvcore, mmpretrain)",
    "layers+norms": "layers, and norms",
}
"""What is counted as multiply-adds, and by whom."""

GROUPS = ("stage", "block", "part")
"""How modules are collected: stages, blocks, or mixers and norms within blocks."""


@dataclass(frozen=True)
class ModuleCost:
    """Cost of one module, or of the whole model.

    Args:
        name: path of the module; `total` for the model.
        parameters: weights, those shared with an earlier module not repeated.
        multiply_adds: of one image or text, under the convention.
        attention_bytes: attention matrices of a batch if they were all kept, in fp32.
        activation_bytes: tensors that a batch keeps for the backward pass, in fp32, without checkpointing and fused
            training blocks; kernels of attention differ by some percent in what they keep.
    """

    name: str
    parameters: int
    multiply_adds: int
    attention_bytes: int
    activation_bytes: int


def model_cost(
    model: nn.Module | str,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    convention: str = "all",
    by: str = "block",
) -> list[ModuleCost]:
    """Return the cost of each group of modules, and last that of the model.

    Args:
        model: a model, or a name in the catalogue.
        size: side of the image or its height and width, or tokens of a text; by default the variant's own.
        batch: images or texts of a batch, for the memory.
        convention: one of `CONVENTIONS`.
        by: one of `GROUPS`.

    Raises:
        VitrailError: the convention or group is unknown.
        Uncounted: the model runs an operator without a counting rule.

    Example:
        >>> total = model_cost("vit_tiny_patch16_224", batch=2)[-1]
        >>> total.parameters, round(total.multiply_adds / 1e9, 3), total.attention_bytes
        (5717416, 1.254, 11176992)
    """
    for kind, given, valid in (("convention", convention, CONVENTIONS), ("grouping", by, GROUPS)):
        if given not in valid:
            raise unknown(kind, given, valid)
    built = on_meta(meta_model(model))
    macs = multiply_adds(built, meta_inputs(built, size), convention)
    inputs = [x.expand(batch, *x.shape[1:]).clone() for x in meta_inputs(built, size)]
    parameters: dict[str, int] = {}
    for name, parameter in built.named_parameters():
        path = name.rpartition(".")[0]
        parameters[path] = parameters.get(path, 0) + parameter.numel()
    tables = (parameters, macs, _attention(built, inputs), _activations(built, inputs))
    names = list(dict.fromkeys(_group(path, by) for path, _ in built.named_modules() if path))
    rows = [ModuleCost(name, *(_sum(table, name, by) for table in tables)) for name in names]
    rows = [row for row in rows if any((row.parameters, row.multiply_adds, row.activation_bytes))]
    return [*rows, ModuleCost("total", *(sum(table.values()) for table in tables))]


def _sum(table: dict[str, int], name: str, by: str) -> int:
    return sum(value for path, value in table.items() if _group(path, by) == name)


def _group(path: str, by: str) -> str:
    """Return the name of the group of a module.

    Example:
        >>> [_group("backbone.stages.0.blocks.1.token_mixer.qkv", by) for by in GROUPS]
        ['backbone.stages.0', 'backbone.stages.0.blocks.1', 'backbone.stages.0.blocks.1.token_mixer']
    """
    parts = path.split(".")
    if "blocks" in parts:
        place = parts.index("blocks")
        end = place if by == "stage" else place + 2 if by == "block" else place + 3
    elif "stages" in parts:
        end = parts.index("stages") + (2 if by == "stage" else 3)
    else:
        end = 1 if parts[0] == "head" else 2
    return ".".join(parts[:end])


def _forward(model: nn.Module) -> Callable[..., Any]:
    return getattr(model, "dense", model)  # of a detector, the part whose cost does not depend on the objects


@torch.no_grad()
def multiply_adds(model: nn.Module, inputs: list[Tensor], convention: str) -> dict[str, int]:
    """Return multiply-adds by the innermost module that computes them.

    Args:
        model: the model.
        inputs: its inputs on the meta device.
        convention: one of `CONVENTIONS`.
    """
    model = on_meta(model).eval().requires_grad_(False)
    norms: dict[str, int] = {}
    with ExitStack() as stack:
        if "norms" in convention:
            for path, module in model.named_modules():
                if isinstance(module, nn.LayerNorm | nn.GroupNorm | _BatchNorm):
                    handle = module.register_forward_hook(_count_norm(norms, path))
                    stack.callback(handle.remove)
        stack.enter_context(NothingUncounted())
        counter = stack.enter_context(FlopCounterMode(display=False))
        _forward(model)(*inputs)
    own = _innermost({name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()})
    if convention.startswith("layers"):
        leaves = {path for path, module in model.named_modules() if isinstance(module, Attend)}
        own = {path: count for path, count in own.items() if path not in leaves}
    return {path: own.get(path, 0) + norms.get(path, 0) for path in own.keys() | norms.keys()}


def _count_norm(norms: dict[str, int], path: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        norms[path] = norms.get(path, 0) + (2 if isinstance(module, _BatchNorm) else 5) * args[0].numel()

    return hook


def _innermost(counts: dict[str, int]) -> dict[str, int]:
    """Subtract from each module's count those of its children; the root's name is its class, its path is empty."""
    paths = {name.partition(".")[2]: count for name, count in counts.items() if name != "Global"}
    own = dict(paths)
    for path, count in paths.items():
        parent = path.rpartition(".")[0]
        while path and parent not in own and parent:
            parent = parent.rpartition(".")[0]
        if path and parent in own:
            own[parent] -= count
    return {path: count for path, count in own.items() if count}


@torch.no_grad()
def _attention(model: nn.Module, inputs: list[Tensor]) -> dict[str, int]:
    """Return the bytes of the attention probabilities of each leaf in fp32."""
    model, found = on_meta(model).eval(), {}

    def watch(path: str) -> Callable[..., None]:
        def hook(leaf: Any, args: tuple[Any, ...]) -> None:
            q, k, _, bias = leaf.operands(*args)
            found[path] = found.get(path, 0) + 4 * leaf.maps(q, k, bias).numel()

        return hook

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if isinstance(module, Attend):
                stack.callback(module.register_forward_pre_hook(watch(path)).remove)
        _forward(model)(*inputs)
    return found


def _activations(model: nn.Module, inputs: list[Tensor]) -> dict[str, int]:
    """Return the bytes that each module saves for the backward pass; a storage saved twice counts once."""
    model, found = on_meta(model).train().requires_grad_(True), {}
    known = {storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    stack: list[str] = [""]

    def pack(tensor: Tensor) -> Tensor:
        if storage(tensor) not in known:
            known.add(storage(tensor))
            found[stack[-1]] = found.get(stack[-1], 0) + tensor.untyped_storage().nbytes()
        return tensor

    with ExitStack() as hooks, torch.enable_grad():
        for handle in _tracked(model, stack):
            hooks.callback(handle.remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        kept = _forward(model)(*inputs)
        del kept  # the graph, and with it every storage, lives until here
    return found


def _tracked(model: nn.Module, stack: list[str]) -> Iterator[Any]:
    """Keep the path of the running module on top of a stack."""
    for path, module in model.named_modules():
        yield module.register_forward_pre_hook(lambda *_, path=path: stack.append(path))
        yield module.register_forward_hook(lambda *_: (stack.pop(), None)[1], always_call=True)


def storage(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage while it lives.

    Example:
        >>> x = torch.zeros(4)
        >>> storage(x) == storage(x[1:]) != storage(x.clone())
        True
    """
    return tensor.untyped_storage()._cdata
