"""End of the command's process, without tearing PyTorch down.

At a normal exit PyTorch's libraries unregister thousands of operators: 1.2 s of processor time and 100 MB of pages, for
memory that the system takes back in any case.
"""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code; exit handlers run and output is flushed, destructors do not run.

    An exception of `main` ends the process as usual.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # handlers run in reverse order: after those of all libraries
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    if not codes or "torch" not in sys.modules:
        return
    with suppress(OSError, ValueError):  # a closed pipe is reported by the normal exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])
