"""The tensors of a training state on disk: whole in one file, or in shards, a file for each process (FSDP2).

Both are safetensors: torch's distributed checkpoint writes the shards with its Hugging Face writer, whose headers say
which part of which tensor they hold, so there is no pickle among them. Its reader takes either into any number of
processes. It does not notice a shard that is missing: the manifest of the state does.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from vitrail.atomic_io import full_disk
from vitrail.errors import DataError
from vitrail.weights.folder import write_tensors

SUFFIX = ".safetensors"


def write_whole(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors that this process holds whole into one file."""
    write_tensors(folder / f"tensors{SUFFIX}", {name: value.contiguous() for name, value in tensors.items()})


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process's shards into a file of its own, and flush it; every process takes part.

    What each process holds alike is written by one of them.

    Raises:
        ResourceError: the disk is full, in whichever process.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with full_disk(folder.parent):
        try:
            save(dict(tensors), storage_writer=writer)
        except CheckpointException as error:
            raise _cause(error) from error


def read_into(folder: Path, tensors: Mapping[str, Tensor], together: bool) -> None:
    """Fill tensors, whole or shards, from what lies in `folder`, whole or in shards.

    Args:
        folder: a state that was checked.
        tensors: what to fill, by name.
        together: whether all processes of the group read at the same time, each its own shards.

    Raises:
        DataError: a tensor is not there, or has another shape.
    """
    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a process that reads alone means to
        try:
            load(dict(tensors), storage_reader=reader, no_dist=not together)
        except CheckpointException as error:
            raise DataError(f"{folder} does not fit this run: {_cause(error)}") from error


def _cause(error: CheckpointException) -> BaseException:
    """Return what went wrong in the first of the processes in which something did."""
    cause, _ = next(iter(error.failures.values()))
    return cause
