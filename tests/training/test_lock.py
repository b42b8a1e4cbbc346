"""One run a folder; a lock never outlives its owner."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitrail.errors import ResourceError
from vitrail.training.lock import LOCK, locked

HOLD = """
import os, sys, time, pathlib
from vitrail.training.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    if sys.argv[2] == "fork":
        os.fork()
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, how: str) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """Run a process that holds the lock, and yield it and the ids of it and its child."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, how], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ids = {int(process.stdout.readline()) for _ in range(2 if how == "fork" else 1)}
        try:
            yield process, ids
        finally:
            process.kill()


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, "alone") as (process, _):
        with pytest.raises(ResourceError, match=f"process {process.pid} on ") as caught, locked(tmp_path):
            pass
        assert caught.value.exit_code == 4
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(3):
        with locked(tmp_path), pytest.raises(ResourceError), locked(tmp_path):
            pass


def test_only_the_last_holder_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("\0" + "somebody with a very long name " * 9)
    words = rf"in use by process {os.getpid()} on \S+\.\n"
    with locked(tmp_path), pytest.raises(ResourceError, match=words), locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Loading workers are forked while the lock is held, and notice the death of the run only seconds later."""
    with holder(tmp_path, "fork") as (process, ids):
        process.kill()
        process.wait()
        (child,) = ids - {process.pid}
        try:
            os.kill(child, 0)  # it lives
            with locked(tmp_path):
                pass
        finally:
            os.kill(child, 9)
