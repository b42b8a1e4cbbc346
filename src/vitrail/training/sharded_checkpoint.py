"""Tensors of a training state on disk: one file of full tensors, or a file of shards per process (FSDP2).

Both are safetensors, without pickle: torch's distributed checkpoint writes the shards with its Hugging Face writer, and
the offsets of each shard in the header. Its reader loads either into any number of processes. It does not detect a
missing shard; the manifest of the state does.
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
    """Write full tensors to one file."""
    write_tensors(folder / f"tensors{SUFFIX}", {name: value.contiguous() for name, value in tensors.items()})


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the shards of this rank to a file of its own, and flush it; every process takes part.

    Replicated tensors are written by one rank.

    Raises:
        ResourceError: the disk is full, on any rank.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with full_disk(folder.parent):
        try:
            save(dict(tensors), storage_writer=writer)
        except CheckpointException as error:
            raise _cause(error) from error


def read_into(folder: Path, tensors: Mapping[str, Tensor], together: bool) -> None:
    """Load tensors, full or sharded, in-place from the files of `folder`, full or sharded.

    Args:
        folder: a verified state.
        tensors: tensors to fill, by name.
        together: whether all processes of the group read at the same time, each its own shards.

    Raises:
        DataError: a tensor is missing, or has another shape.
    """
    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # intended if one process reads alone
        try:
            load(dict(tensors), storage_reader=reader, no_dist=not together)
        except CheckpointException as error:
            raise DataError(f"{folder} does not fit this run: {_cause(error)}") from error


def _cause(error: CheckpointException) -> BaseException:
    """Return the exception of the first rank that failed."""
    cause, _ = next(iter(error.failures.values()))
    return cause
