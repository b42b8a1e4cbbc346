"""Work over images on all cores, in order, with progress."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils import data

from vitrail.errors import ResourceError

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(work: Callable[[T], R], items: Sequence[T], title: str, workers: int | None = None) -> Iterator[R]:
    """Yield `work(item)` for each item, in order.

    Args:
        work: the function; it is sent to the worker processes, so it must not depend on state of this process.
        items: its arguments, one call each.
        title: title of the progress bar, which is shown on a terminal only.
        workers: number of processes; by default the number of cores, and none for a few items.
    """
    if workers is None:
        workers = min(cores(), 16) if len(items) >= 8 else 0
    loader = data.DataLoader(
        _Work(work, items), batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=torch.Generator()
    )
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(items))
        try:
            for result in loader:
                yield result
                progress.advance(task)
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error


def worker_failure(error: RuntimeError) -> ResourceError | None:
    """Return a `ResourceError` with a remedy if a worker process died or hangs; None for any other error.

    PyTorch raises it at any point of the main process, so a training loop should call this too.

    Example:
        >>> worker_failure(RuntimeError("something else")) is None
        True
    """
    text = str(error)
    killed = re.search(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (?:is killed by signal: (\w[\w ]*)|exited)", text)
    if killed:
        how = f"was killed by signal {killed[2]}" if killed[2] else "ended"
        return ResourceError(
            f"A loading worker (process {killed[1]}) {how}.\n"
            "The usual cause is memory: too many workers, or a small /dev/shm.\n"
            "Use fewer workers (0 loads in the main process and shows the real error)."
        )
    if "DataLoader timed out" in text:
        return ResourceError(
            f"The loading workers gave nothing: {text.split('.')[0]}.\nThe disk or the network folder hangs, or the"
            " machine is overloaded; check that the data can be read, then resume."
        )
    return None


def _as_it_is(item: Any) -> Any:
    return item


class _Work(data.Dataset[Any]):
    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.work, self.items = work, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.work(self.items[number])
