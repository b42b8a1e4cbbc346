"""The dispatcher: every verb is there, failures become exit codes, and the process ends as a shell expects."""

import dataclasses
import errno
import os
import pty
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from vitrail import cli
from vitrail.cli import VERBS, verb_class, verb_examples
from vitrail.cli.arguments import parse
from vitrail.cli.flags import flags_of
from vitrail.cli.help_format import field_docs
from vitrail.errors import DataError, ResourceError, VitrailError

COMMAND = [sys.executable, "-m", "vitrail"]
each_verb = pytest.mark.parametrize("verb", VERBS)


def test_help_names_every_verb_and_fits_a_terminal(run):
    for words in ([], ["--help"], ["-h"], ["help"]):
        ran = run(*words)
        assert ran.code == 0 and ran.err == ""
        assert all(f"\n  {verb} " in ran.out for verb in VERBS)
        assert max(map(len, ran.out.splitlines())) <= 100


@each_verb
def test_a_verb_without_arguments_prints_help(run, verb):
    ran = run(verb, "--help")
    assert ran.code == 0 and ran.err == ""
    assert all(f"--{flag.name}" in ran.out for flag in flags_of(verb_class(verb)) if not flag.positional)
    assert f"examples:\n  vitrail {verb}" in ran.out
    assert run("help", verb).out == ran.out


@each_verb
def test_every_flag_is_explained(verb):
    # A docstring follows each field; Python forgets it, so the source is read.
    explained = field_docs(verb_class(verb))
    for field in dataclasses.fields(verb_class(verb)):
        assert explained.get(field.name), f"{verb}: {field.name} has no docstring"


@each_verb
def test_every_example_of_the_help_parses(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line.split(">")[0].split("|")[0], comments=True) for line in verb_examples(verb).splitlines()
    ]
    typed = [words[words.index(verb) + 1 :] for words in commands if words]
    assert typed
    for words in typed:
        for flag, file in pairwise(words):  # these two are read with the words
            if flag in ("--config", "--resume"):
                path = Path(file) / "config.yaml" if flag == "--resume" else Path(file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("data: flowers/\n")
        assert dataclasses.is_dataclass(parse(verb, verb_class(verb, words), words))


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (VitrailError("No such thing."), 2, "No such thing."),
        (DataError("Broken image."), 3, "Broken image."),
        (ResourceError("No disk."), 4, "No disk."),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 4, "The disk is full while writing runs/x."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 4, "The disk is full."),
        (MemoryError(), 4, "Out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 4, "Use a smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 4, "smaller batch"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), 2, "Cannot use /etc/x: Permission denied."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_user_errors_are_a_message_and_an_exit_code(run, monkeypatch, failure, code, words):
    def fail(arguments: list[str]) -> int:
        raise failure

    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setattr(cli, "_silence_stdout", lambda: None)
    ran = run("models")
    assert ran.code == code
    assert words in ran.err and "Traceback" not in ran.err
    assert len(ran.err.splitlines()) <= 6


def test_a_bug_prints_its_traceback_and_how_to_report_it(monkeypatch):
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: {}["lost"])
    with pytest.raises(KeyError) as caught:
        cli.main(["models"])
    assert "vitrail doctor --json" in "".join(caught.value.__notes__)


def test_exit_codes_reach_the_shell():
    done = subprocess.run([*COMMAND, "modles"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: Unknown verb 'modles'. Did you mean: models?"


def test_a_process_ends_with_its_code_without_destructors(tmp_path: Path):
    program = tmp_path / "end.py"
    program.write_text(
        "import atexit, sys, types\nfrom vitrail.cli.fast_exit import run_and_exit\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "class Late:\n    def __del__(self):\n        print('destructor', flush=True)\n"
        "late = Late()\n"
        "def main():\n    atexit.register(print, 'handler')\n    print('work')\n    return 3\n"
        "run_and_exit(main)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "work\nhandler\n", "")


def test_a_closed_pipe_is_silent():
    line = f"{shlex.join(COMMAND)} models | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("name")


def test_ctrl_c_and_sigterm_end_with_the_usual_codes(tmp_path: Path):
    program = tmp_path / "wait.py"
    program.write_text(
        "import signal, sys, time\nfrom vitrail import cli\n"
        # whoever runs the tests in the background may have told all of their children to ignore Ctrl-C
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(arguments):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "cli._dispatch = wait\nsys.exit(cli.main([]))\n"
    )
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        child = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(sent)
        _, said = child.communicate(timeout=60)
        assert child.returncode == code and "Traceback" not in said


def on_a_terminal(words: list[str], **variables: str) -> str:
    """Run the command with both outputs on a pseudo-terminal, and return its output."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **variables}
    subprocess.run([*COMMAND, *words], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    said = b""
    with suppress(OSError):  # Linux ends a terminal that nobody holds with an error
        while part := os.read(leader, 65536):
            said += part
    os.close(leader)
    return said.decode()


@pytest.mark.parametrize("words", [["modles"], ["models", "--help"]])
def test_colours_only_on_supporting_terminals(words):
    assert "\033[" in on_a_terminal(words)
    plain = on_a_terminal(words, NO_COLOR="1")
    assert "\033[" not in plain and "models" in plain
