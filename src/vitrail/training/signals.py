"""Stopping on request: a flag that the loop looks at between two updates.

The loop only reads the flag. Who sets it is another matter: the command ties it to SIGINT and SIGTERM (`on_signals`);
a program that uses the library may set it from a thread or a button, and keeps its own signal handlers.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A request to stop, with the exit code that the command leaves with.

    Example:
        >>> stop = StopRequest()
        >>> stop.request(143)
        >>> stop.code
        143
    """

    def __init__(self) -> None:
        self.code = 0

    def request(self, code: int = 130) -> None:
        """Ask the run to save and stop after the update at hand."""
        self.code = code


class Interrupted(Exception):
    """A run stopped on request after saving everything; `code` is the exit code asked for.

    Not an error: the run did what it was told. `Ctrl-C` gives 130 and SIGTERM gives 143, as shells expect.
    """

    def __init__(self, code: int, folder: str) -> None:
        super().__init__(f"Stopped and saved. Go on with: vitrail train --resume {folder}")
        self.code = code


@contextmanager
def on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """Tie `stop` to SIGINT and SIGTERM inside the block; a second signal leaves at once, without saving.

    For commands only: a library must not take over the signals of its host.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.code:
            os._exit(128 + number)
        stop.request(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
