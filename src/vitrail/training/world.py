"""The processes of a run: alone, each with the whole model (DDP), or each with a shard (FSDP2).

The loop sees one of three objects with the same methods and never asks which. All communication and all gathering of
sharded state is torch's own; start several processes with torchrun.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as checkpoint
from torch.nn.parallel import DistributedDataParallel

from vitrail.errors import VitrailError

_WHOLE = checkpoint.StateDictOptions(full_state_dict=True, cpu_offload=True)
_SPREAD = checkpoint.StateDictOptions(full_state_dict=True)
_PATIENCE = timedelta(minutes=10)

Result = TypeVar("Result")


class SingleProcess:
    """One process that does everything."""

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1):
        self.device, self.rank, self.size = device, rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def wrap(self, student: nn.Module) -> nn.Module:
        """Return the module whose forward and backward the loop calls; parameters may be replaced by shards."""
        return student

    def part(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Return the context for one part of an accumulated batch; gradients are exchanged in the last."""
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        return values

    def largest(self, values: list[float]) -> list[float]:
        """Return the largest of each number over the processes, so that all decide alike."""
        return values

    def gather(self, value: Any) -> list[Any]:
        """Collect a small value from each process, in order of rank."""
        return [value]

    def follow(self, work: Callable[[], Result]) -> Result:
        """Let the first process work alone, for as long as it takes, and return its result in all of them."""
        return work()

    def model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the whole state of the model on the CPU, under plain names; empty where this process does not lead."""
        return checkpoint.get_model_state_dict(model, options=_WHOLE)  # pyright: ignore[reportReturnType]

    def optimizer_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return the whole state of the optimizer as `parameter|quantity`; empty where this process does not lead."""
        state: Any = checkpoint.get_optimizer_state_dict(model, optimizer, options=_WHOLE).get("state", {})
        return {f"{name}|{key}": value for name, slots in state.items() for key, value in slots.items()}

    def load_model_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Put a whole state back; each process keeps its part of it."""
        checkpoint.set_model_state_dict(model, dict(state), options=_SPREAD)

    def load_optimizer_state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]
    ) -> None:
        """Put back what `optimizer_state` returned."""
        whole: Any = checkpoint.get_optimizer_state_dict(model, optimizer, options=_SPREAD)
        whole["state"] = {}
        for flat, value in state.items():
            name, _, key = flat.rpartition("|")
            whole["state"].setdefault(name, {})[key] = value
        checkpoint.set_optimizer_state_dict(model, optimizer, whole, options=_SPREAD)

    def close(self) -> None:
        """Leave the group of processes."""


class DataParallel(SingleProcess):
    """Each process holds the whole model and sees its share of every batch; gradients are averaged."""

    def wrap(self, student: nn.Module) -> nn.Module:
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(student, device_ids=devices, gradient_as_bucket_view=True)

    def part(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
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

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def follow(self, work: Callable[[], Result]) -> Result:
        patient: Any = dist.new_group(timeout=timedelta(days=7), backend="gloo")
        result: list[Any] = [work() if self.leads else None]
        dist.broadcast_object_list(result, src=0, group=patient)
        return result[0]

    def close(self) -> None:
        dist.destroy_process_group()


class FullyShardedParallel(DataParallel):
    """Each process holds a shard of every weight, gradient and moment (FSDP2); a block is whole only while it works."""

    def wrap(self, student: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        model: Any = student.model
        for stage in model.backbone.stages:
            for block in stage.blocks:
                fully_shard(block, mesh=mesh)
        fully_shard(student, mesh=mesh)  # in place: the module becomes its sharded self
        return student

    @contextmanager
    def part(self, module: nn.Module, last: bool) -> Iterator[None]:
        module.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        yield


def connect(device: str, parallel: str) -> SingleProcess:
    """Join the processes that torchrun started, or stand alone.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...; with several processes each takes the GPU of its local rank.
        parallel: `ddp` or `fsdp`, where there is more than one process.

    Raises:
        VitrailError: the device is not there.
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
    """Return the device a user means; `auto` is a GPU where there is one.

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
