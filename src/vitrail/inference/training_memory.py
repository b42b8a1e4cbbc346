"""Memory of training: tensors alive over small updates, extrapolated to any batch.

Updates are made with a batch of two and of three samples. Every tensor that an operation makes is followed until it is
freed, so kernels, fused blocks, autocast and checkpointing count as they run. The bytes at each moment are linear in
the batch size, and the peak of a batch is the largest of them.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitrail.errors import unknown
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.inference.flops import meta_inputs
from vitrail.parts.recomputation import recompute_blocks

PRECISIONS = ("fp32", "bf16")
OPTIMIZERS = ("adamw", "sgd")
_PROBES = (2, 3)
_UPDATES = 2  # the first one makes the states of the optimizer


@dataclass(frozen=True)
class TrainingSetup:
    """What the memory of training depends on.

    Args:
        batch: samples of an update.
        precision: `fp32`, or `bf16` for autocast with weights in fp32.
        optimizer: `adamw` or `sgd` (with momentum).
        checkpointing: whether blocks are computed again in the backward pass.
        fused: whether blocks are the fused training blocks, as in `vitrail train` on a CPU.
    """

    batch: int
    precision: str = "fp32"
    optimizer: str = "adamw"
    checkpointing: bool = False
    fused: bool = True

    def __post_init__(self) -> None:
        for kind, given, valid in (
            ("precision", self.precision, PRECISIONS),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if given not in valid:
                raise unknown(kind, given, valid)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of the tensors of a training.

    Args:
        weights: of the model.
        gradients: of the weights.
        optimizer: states of the optimizer.
        activations: everything else at the moment of the peak.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.weights + self.gradients + self.optimizer + self.activations


class LiveTensors(TorchDispatchMode):
    """Bytes of storages that operations make or read, after each event, until they are freed.

    Args:
        known: tensors that exist and are counted from the start.
    """

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.live = 0
        self.history: list[int] = []
        self._seen: set[int] = set()
        for each in known:
            self._add(each)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        for each in tree_leaves((args, kwargs)):  # results of native code are seen where they are read first
            if isinstance(each, Tensor):
                self._add(each)
        result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._add(each)
        self.history.append(self.live)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            size = storage.nbytes()
            self.live += size
            weakref.finalize(storage, self._remove, key, size).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def training_memory(
    model: nn.Module, setup: TrainingSetup, size: int | tuple[int, int] | None = None
) -> TrainingMemory:
    """Return the memory that the tensors of a training take at its peak.

    The updates are made on a copy of the model, on the CPU, with random inputs.

    Args:
        model: a model of the catalogue.
        setup: batch, precision, optimizer, checkpointing.
        size: side of the image in pixels, or tokens of a text; by default the model's own.

    Raises:
        VitrailError: the precision or optimizer is unknown.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, dim=24, image_size=32)
        >>> memory = training_memory(model, TrainingSetup(batch=8))
        >>> memory.gradients == memory.weights, memory.optimizer == 2 * memory.weights
        (True, True)
    """
    [memory] = training_memories(model, setup, (setup.batch,), size)
    return memory


def training_memories(
    model: nn.Module, setup: TrainingSetup, batches: tuple[int, ...], size: int | tuple[int, int] | None = None
) -> list[TrainingMemory]:
    """Return the memory for several batches, from the same small updates; arguments as of `training_memory`."""
    small, large = (_history(model, setup, batch, size) for batch in _PROBES)
    sizes = [(each.numel() * each.element_size(), each.requires_grad) for each in model.parameters()]
    weights, learning = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
    states = (2 if setup.optimizer == "adamw" else 1) * learning
    rest = weights + learning + states
    return [TrainingMemory(weights, learning, states, extrapolate(small, large, batch) - rest) for batch in batches]


def extrapolate(small: list[int], large: list[int], batch: int) -> int:
    """Return the largest bytes of a batch, from the bytes at each moment with two and with three samples.

    Example:
        >>> extrapolate([100, 40], [110, 60], 10)
        200
    """
    first, second = _PROBES
    if len(small) != len(large):  # the operations depend on the batch: only the peaks are comparable
        small, large = [max(small)], [max(large)]
    return max(a + (b - a) * (batch - first) // (second - first) for a, b in zip(small, large, strict=True))


def _history(model: nn.Module, setup: TrainingSetup, batch: int, size: int | tuple[int, int] | None) -> list[int]:
    """Return the bytes alive after each operation of some updates."""
    model = deepcopy(model).cpu().train()
    if setup.fused:
        fuse_for_training(model)
    if setup.checkpointing:
        recompute_blocks(model)
    inputs = probe_inputs(model, batch, size)
    optimizer = make_probe_optimizer(setup.optimizer, model)
    live = LiveTensors([*model.parameters(), *model.buffers(), *inputs])
    with torch.random.fork_rng(devices=[]), live:
        for _ in range(_UPDATES):
            update(model, inputs, optimizer, setup.precision)
    return live.history


def probe_inputs(model: nn.Module, batch: int, size: int | tuple[int, int] | None = None) -> list[Tensor]:
    """Return a batch of zeros.

    Example:
        >>> from vitrail.models import create_model
        >>> [x.shape for x in probe_inputs(create_model("vit_tiny_patch16_224", depth=1), 2, 32)]
        [torch.Size([2, 3, 32, 32])]
    """
    shapes = [(batch, *each.shape[1:]) for each in meta_inputs(model, size)]
    kinds = [each.dtype for each in meta_inputs(model, size)]
    return [torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True)]


def make_probe_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer as training makes it, at a learning rate of zero.

    Example:
        >>> type(make_probe_optimizer("sgd", nn.Linear(1, 1))).__name__
        'SGD'
    """
    learning = [each for each in model.parameters() if each.requires_grad]
    if name == "adamw":
        return torch.optim.AdamW(learning, lr=0.0, fused=True)
    return torch.optim.SGD(learning, lr=0.0, momentum=0.9, nesterov=True, fused=True)


def update(model: nn.Module, inputs: list[Tensor], optimizer: torch.optim.Optimizer, precision: str) -> None:
    """Make one update: cross entropy of class scores, or the mean square of any other output."""
    cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with cast:
        output = model(*inputs)
        first = next(each for each in tree_leaves(output) if isinstance(each, Tensor))
    first = first.float()
    if first.ndim == 2:
        loss = nn.functional.cross_entropy(first, torch.zeros(len(first), dtype=torch.long))
    else:
        loss = first.square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
