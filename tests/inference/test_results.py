"""A job that is killed, starts again, and leaves the file that it would have left undisturbed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from shades import Brightness

from vitrail.errors import DataError, VitrailError
from vitrail.inference.jsonl import ResultFile, job_of
from vitrail.tasks.classify.options import PredictOptions
from vitrail.tasks.classify.predictor import ClassPredictor
from vitrail.tasks.classify.result import Classification

NAMES = [f"p{i}" for i in range(6)]


def answer(name: str) -> Classification:
    return Classification(name, ("cat", "dög"), (0.75, 0.25), (0, 1))


def paths(file: Path) -> list[str]:
    return [json.loads(line)["path"] for line in file.read_bytes().splitlines()]


def whole(file: Path, bad: tuple[str, ...] = ()) -> bytes:
    """Return the output of an undisturbed job."""
    results = ResultFile(file, "job")
    for name in NAMES:
        results.add(Classification(name, error="broken") if name in bad else answer(name))
    results.finish(NAMES)
    return file.read_bytes()


def test_results_truncated_at_any_byte_resume(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole.jsonl", bad=("p2",))
    file = tmp_path / "cut.jsonl"
    ends = [i for i, byte in enumerate(expected) if byte == ord("\n")]
    for length in sorted({*range(0, len(expected), 37), *ends, *(end + 1 for end in ends)}):
        file.write_bytes(expected[:length])
        results = ResultFile(file, "job")
        todo = [name for name in NAMES if name not in results.done]
        assert "p2" in todo  # failures are tried again
        assert len(todo) >= 6 - expected[:length].count(b"\n")
        for name in todo:
            results.add(Classification(name, error="broken") if name == "p2" else answer(name))
        results.finish(NAMES)
        assert file.read_bytes() == expected, length
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.jsonl", "whole.jsonl"]


def test_a_repaired_image_is_predicted_on_resume(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    whole(file, bad=("p1", "p4"))
    results = ResultFile(file, "job")
    assert results.done == {"p0", "p2", "p3", "p5"}
    results.add(answer("p1"))
    results.add(Classification("p4", error="broken"))
    results.finish(NAMES)
    assert paths(file) == NAMES
    assert "error" not in json.loads(file.read_bytes().splitlines()[1])


def test_results_of_other_images_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    whole(file)
    results = ResultFile(file, "job")
    results.add(answer("new"))
    results.finish(["new", "p3"])
    assert paths(file) == ["p0", "p1", "p2", "p4", "p5", "new", "p3"]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    results = ResultFile(tmp_path / "r.jsonl", "job")
    results.add(answer(odd))
    results.finish([odd])
    again = ResultFile(tmp_path / "r.jsonl", "job")
    again.close()
    assert again.done == {odd}


def test_another_job_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    before = whole(file)
    with pytest.raises(VitrailError, match="holds answers of another job"):
        ResultFile(file, "other")
    for foreign in (b"hello\n", b"{}\n", b"[1]\n", b'{"path": 3, "job": "job"}\n', b"\xff\n"):
        file.write_bytes(foreign)
        with pytest.raises(DataError, match="line 1 is not a result"):
            ResultFile(file, "job")
        assert file.read_bytes() == foreign
    assert before


def job(model: Brightness, **options: Any) -> str:
    return job_of(model, ClassPredictor(model, PredictOptions(**options), None))


def test_job_options_that_change_results_identify_the_job(brightness: Brightness) -> None:
    first = job(brightness)
    assert first == job(Brightness()) == job(brightness, batch=3, optimize=False)
    assert first != job(brightness, top=4)
    assert first != job(brightness, labels=("a", "b", "c", "d"))
    with torch.no_grad():
        brightness.centres[2] += 1e-4
    assert first != job(brightness)


def test_a_killed_process_resumes(tmp_path: Path) -> None:
    # SIGKILL from outside, after a line has reached the disk.
    expected, file = whole(tmp_path / "whole.jsonl"), tmp_path / "killed.jsonl"
    program = textwrap.dedent(
        """
        import sys, time
        from vitrail.inference.jsonl import ResultFile
        from vitrail.tasks.classify.result import Classification
        results = ResultFile(sys.argv[1], "job")
        for name in [f"p{i}" for i in range(6)]:
            if name not in results.done:
                results.add(Classification(name, ("cat", "dög"), (0.75, 0.25), (0, 1)))
                print(name, flush=True)
                time.sleep(60 if len(sys.argv) > 2 else 0)
        results.finish([f"p{i}" for i in range(6)])
        """
    )
    command = [sys.executable, "-c", program, str(file)]
    with subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "p0\n"
        process.send_signal(signal.SIGKILL)
    assert paths(file) == ["p0"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == NAMES[1:]
    assert file.read_bytes() == expected
