"""Doing the next ones in the background: ordered, bounded, and over when the reader is."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import ceil
from threading import Event
from typing import TypeVar

from vitrail.data.parallel import cores

A = TypeVar("A")
B = TypeVar("B")


def prefetch_map(
    function: Callable[[A], B], items: Iterable[A], window: int, threads: int = 0, gate: Event | None = None
) -> Iterator[B]:
    """Yield `function(item)` in the order of the items, with up to `window` of them under way in threads.

    Args:
        function: called with each; an exception of it is raised when its turn comes.
        items: read only as far as the window reaches.
        window: most results that are held at a time.
        threads: how many work at a time; 0 is one for each core.
        gate: while it is cleared, none begins another: somebody takes a time, or has other need of the machine.

    Example:
        >>> list(prefetch_map(lambda x: x * x, range(4), window=2, threads=2))
        [0, 1, 4, 9]
    """
    source, waiting = iter(items), deque[Future[B]]()

    def work(item: A) -> B:
        if gate is not None:
            gate.wait()
        return function(item)

    pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="vitrail-read")
    try:
        waiting.extend(pool.submit(work, item) for item in islice(source, window))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def balanced_batch_size(size: int, count: int | None) -> int:
    """Return the size of batches, none of which is a small rest: at most `size`, for `count` items (None: unknown).

    Example:
        >>> balanced_batch_size(32, 100), balanced_batch_size(32, None)
        (25, 32)
    """
    return ceil(count / ceil(count / size)) if count else size


def batched(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Yield lists of `size` items; the last one may be shorter.

    Example:
        >>> list(batched("abc", 2))
        [['a', 'b'], ['c']]
    """
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
