"""Stop requests: a flag that the loop checks between two updates.

The command sets it on SIGINT and SIGTERM (`on_signals`); a program that uses the library may set it from a thread or a
button, and keeps its own signal handlers.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A request to stop, with the exit code of the command.

    Example:
        >>> stop = StopRequest()
        >>> stop.request(143)
        >>> stop.code
        143
    """

    def __init__(self) -> None:
        self.code = 0

    def request(self, code: int = 130) -> None:
        """Request the run to save and stop after the current update."""
        self.code = code


class Interrupted(Exception):
    """A run stopped on request after saving everything; `code` is the requested exit code.

    Not an error. `Ctrl-C` gives 130 and SIGTERM gives 143, the convention of shells.
    """

    def __init__(self, code: int, folder: str) -> None:
        super().__init__(f"Stopped and saved. Go on with: vitrail train --resume {folder}")
        self.code = code


@contextmanager
def on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """Connect `stop` to SIGINT and SIGTERM inside the block; a second signal exits at once, without saving.

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
