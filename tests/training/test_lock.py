"""One run a folder; a lock never outlives its owner."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail.errors import ResourceError
from vitrail.training.lock import locked

HOLD = "import sys, time, pathlib; from vitrail.training.lock import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ResourceError, match=f"process {other.pid}") as caught, locked(tmp_path):
            pass
        assert caught.value.exit_code == 4
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with locked(tmp_path):
            pass


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(3):
        with locked(tmp_path), pytest.raises(ResourceError), locked(tmp_path):
            pass


def test_a_child_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Loading workers are forked while the lock is held, and notice the death of the run only seconds later."""
    fork = HOLD.replace("    time.sleep(60)", "    os.fork()\n    time.sleep(30)").replace(
        "import sys", "import os, sys"
    )
    with subprocess.Popen([sys.executable, "-c", fork, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children")
        while not (child := children.read_text().split()):
            pass
        os.kill(other.pid, signal.SIGKILL)
        os.waitpid(other.pid, 0)
        other.returncode = -signal.SIGKILL
        with locked(tmp_path):
            pass
        os.kill(int(child[0]), signal.SIGKILL)
