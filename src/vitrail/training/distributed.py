"""Processes of a run: a single one, DDP (the whole model in each), or FSDP2 (a shard in each).

The loop uses one of three classes with the same methods. All communication and all gathering of sharded state is
torch's own; start several processes with torchrun.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as checkpoint
from torch.nn.parallel import DistributedDataParallel

from vitrail.errors import VitrailError
from vitrail.parts.reversible import ReversibleStack
from vitrail.training.param_groups import blocks
from vitrail.training.sharded_checkpoint import read_into, write_shards, write_whole

_WHOLE = checkpoint.StateDictOptions(full_state_dict=True, cpu_offload=True)
_PATIENCE = timedelta(minutes=10)

Result = TypeVar("Result")
Value = TypeVar("Value")


class SingleProcess:
    """A run of one process."""

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1):
        self.device, self.rank, self.size = device, rank, size

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and reports progress."""
        return self.rank == 0

    def wrap(self, student: nn.Module) -> nn.Module:
        """Return the module for forward and backward in the loop; parameters may be replaced by shards."""
        return student

    def part(self, module: nn.Module, last: bool) -> AbstractContextManager[object]:
        """Return the context of one micro-batch; gradients are all-reduced in the last."""
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""
        return values

    def largest(self, values: list[float]) -> list[float]:
        """Return the maximum of each number over the ranks, so that all take the same decision."""
        return values

    def weigh(self, weight: float) -> tuple[float, float]:
        """Return the factor on this rank's mean loss, and the weight of the batches of all ranks.

        Gradients are averaged over the ranks; with the factor, that is the gradient of the mean over the global batch.
        It is exactly 1 if all ranks have the same weight, and 0 for an empty batch.
        """
        return float(weight > 0), weight

    def gather(self, value: Value) -> list[Value]:
        """Gather a small value from each rank, in order of rank."""
        return [value]

    def follow(self, work: Callable[[], Result]) -> Result:
        """Run `work` on rank 0 only, for as long as it takes; its result, or its error, is that of all ranks."""
        return work()

    def each(self, work: Callable[[], Result]) -> list[Result]:
        """Run `work` on each rank and return all results, in order of rank; an error of one is raised on all."""
        return [work()]

    def model_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of the model (no copies), or this rank's shards, under plain names."""
        return checkpoint.get_model_state_dict(model)  # pyright: ignore[reportReturnType]

    def optimizer_tensors(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return the tensors of the optimizer (no copies), or this rank's shards, as `parameter|quantity`.

        The state of an optimizer that has not stepped yet is created as in its first step.
        """
        state: Any = checkpoint.get_optimizer_state_dict(model, optimizer)["state"]
        return {f"{name}|{key}": value for name, slots in state.items() for key, value in slots.items()}

    def whole_model(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the full tensors of the model on the CPU; empty on all ranks but 0."""
        return checkpoint.get_model_state_dict(model, options=_WHOLE)  # pyright: ignore[reportReturnType]

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        """Write tensors into a folder; return the names of the files that this rank checksums."""
        if self.leads:
            write_whole(folder, tensors)
        return sorted(path.name for path in folder.iterdir()) if self.leads else []

    def read(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors, or this rank's shards, in-place from files of any number of processes."""
        read_into(folder, tensors, together=False)

    def close(self) -> None:
        """Destroy the process group."""


class DataParallel(SingleProcess):
    """DDP: each rank holds the whole model and computes its share of every batch; gradients are averaged."""

    def wrap(self, student: nn.Module) -> nn.Module:
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(student, device_ids=devices, gradient_as_bucket_view=True)

    def part(self, module: nn.Module, last: bool) -> AbstractContextManager[object]:
        assert isinstance(module, DistributedDataParallel)
        return nullcontext() if last else module.no_sync()

    def total(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def largest(self, values: list[float]) -> list[float]:
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together, op=dist.ReduceOp.MAX)
        return together.tolist()

    def weigh(self, weight: float) -> tuple[float, float]:
        most, least = self.largest([weight, -weight])
        if most == -least:
            return float(weight > 0), weight * self.size
        total = self.total(torch.tensor(weight, dtype=torch.float64, device=self.device)).item()
        return weight * self.size / total, total

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def follow(self, work: Callable[[], Result]) -> Result:
        outcome: list[Any] = [_attempt(work) if self.leads else None]
        dist.broadcast_object_list(outcome, src=0, group=self._patient)
        return _results(outcome)[0]

    def each(self, work: Callable[[], Result]) -> list[Result]:
        return _results(self.gather(_attempt(work)))

    @cached_property
    def _patient(self) -> Any:
        """Process group of all ranks with a long timeout, for long work on rank 0."""
        return dist.new_group(timeout=timedelta(days=7), backend="gloo")

    def close(self) -> None:
        dist.destroy_process_group()


class FullyShardedParallel(DataParallel):
    """FSDP2: each rank holds a shard of every weight, gradient and moment; a block is gathered only while it runs."""

    def wrap(self, student: nn.Module) -> nn.Module:
        if any(isinstance(module, ReversibleStack) for module in student.modules()):
            raise VitrailError(
                "Reversible layers call parts of their blocks, for which FSDP does not gather weights.\n"
                "Use --parallel ddp: their memory does not grow with the depth."
            )
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        for block in blocks(student.model):  # pyright: ignore[reportArgumentType]
            fully_shard(block, mesh=mesh)
        # In-place. By default parameters outside the blocks would stay gathered after a forward pass; after a
        # validation those are the averaged weights, and the next update would be computed with them.
        fully_shard(student, mesh=mesh, reshard_after_forward=True)
        return student

    @contextmanager
    def part(self, module: nn.Module, last: bool) -> Iterator[None]:
        module.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        yield

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        write_shards(folder, tensors)
        return sorted(path.name for path in folder.iterdir())[self.rank :: self.size]

    def read(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        read_into(folder, tensors, together=True)


def connect(device: str, parallel: str) -> SingleProcess:
    """Join the process group of torchrun, or return a single process.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...; with several processes each takes the GPU of its local rank.
        parallel: `ddp` or `fsdp`, if there is more than one process.

    Raises:
        VitrailError: the device is not available.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SingleProcess(find_device(device))
    local = int(os.environ["LOCAL_RANK"])
    chosen = find_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    kind = {"ddp": DataParallel, "fsdp": FullyShardedParallel}[parallel]
    return kind(chosen, dist.get_rank(), size)


def find_device(name: str) -> torch.device:
    """Return a device by name; `auto` is a GPU if there is one.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise VitrailError(f"Unknown device '{name}'. Use auto, cpu, cuda or cuda:<number>.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise VitrailError(
            f"Device {name} is not there: this machine has {torch.cuda.device_count()} CUDA GPUs. Use auto or cpu."
        )
    return device


def _attempt(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Return the result of `work`, or the exception that it raised."""
    try:
        return work(), None
    except (OSError, VitrailError) as error:
        return None, error


def _results(outcomes: list[tuple[Any, Exception | None]]) -> list[Any]:
    """Return the results of all ranks, or raise the first error."""
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]
