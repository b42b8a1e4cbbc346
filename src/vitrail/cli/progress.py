"""The bar of a verb that processes inputs: how far, how fast, how long still, how much memory."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal while the block runs, and yield the function that sets the number done.

    It is drawn on standard error, so that results can be piped; without a terminal nothing is drawn.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from vitrail.training.reporters import memory_in_use

    facts = TextColumn("{task.fields[speed]}")
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), facts, TextColumn("ETA"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, speed="")

        def tell(done: float) -> None:
            seconds = progress.tasks[0].elapsed or 0.0
            speed = f"{done / seconds:,.0f} /s  {memory_in_use() / 2**20:,.0f} MB" if seconds else ""
            progress.update(task, completed=done, speed=speed)

        yield tell
