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
