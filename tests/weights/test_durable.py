"""A crash or a full disk at any step leaves the old files or the new ones."""

import builtins
import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from vitrail import atomic_io
from vitrail.atomic_io import (
    check_writable,
    check_writable_folder,
    make_folder,
    replace_folder,
    settle,
    write_file,
)
from vitrail.errors import ResourceError, VitrailError

# The children touch files only, so it is safe to fork them with torch's threads running; Python 3.12 warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill(folder, value: bytes):
    write_file(folder / "a", value)
    write_file(folder / "b", value * 2)


def make(target, value: bytes):
    with replace_folder(target) as new:
        fill(new, value)


def test_a_file_is_written_and_replaced_without_leftovers(tmp_path):
    write_file(tmp_path / "a", b"one")
    write_file(tmp_path / "a", b"two")
    assert contents(tmp_path) == {"a": b"two"}


def test_an_unwritable_path_is_refused_before_any_work(tmp_path):
    (tmp_path / "old.csv").write_bytes(b"old")
    check_writable(tmp_path / "old.csv")
    check_writable(tmp_path / "new.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"] and (tmp_path / "old.csv").read_bytes() == b"old"
    with pytest.raises(VitrailError, match="there is no folder"):
        check_writable(tmp_path / "none" / "new.csv")
    with pytest.raises(VitrailError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(VitrailError, match="cannot be written"):
        check_writable(tmp_path / ("x" * 255))  # a name with no room for the suffix of the temporary file


def test_a_folder_is_made_and_replaced_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    make(target, b"one")
    (target / "extra").write_bytes(b"gone after the next")
    make(target, b"two")
    assert contents(target) == {"a": b"two", "b": b"twotwo"}
    assert os.listdir(target.parent) == ["folder"]


def test_without_an_atomic_exchange_the_result_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_io, "_exchange", lambda one, other: False)
    make(tmp_path / "x", b"one")
    make(tmp_path / "x", b"two")
    assert contents(tmp_path / "x")["a"] == b"two" and os.listdir(tmp_path) == ["x"]


def test_an_error_in_the_block_leaves_the_old_folder(tmp_path):
    make(tmp_path / "x", b"one")
    with pytest.raises(KeyError), replace_folder(tmp_path / "x") as new:
        (new / "a").write_bytes(b"half")
        raise KeyError("stop")
    assert contents(tmp_path / "x")["a"] == b"one" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_crash_at_any_operation_leaves_old_or_new(exchange, tmp_path, monkeypatch):
    """Die at each system call in turn, then read as the next process would: whole, old or new, and the litter goes."""
    if not exchange:
        monkeypatch.setattr(atomic_io, "_exchange", lambda one, other: False)
    for deadly in range(1, 100):
        for before in (True, False):
            target = tmp_path / f"{deadly}-{before}" / "x"
            make(target, b"old")
            if not die_at(deadly, before, lambda target=target: make(target, b"new")):
                assert deadly > 8, "the write makes more steps than that"
                return
            settle(target)
            assert contents(target) in ({"a": b"old", "b": b"oldold"}, {"a": b"new", "b": b"newnew"})
            assert os.listdir(target.parent) == ["x"]


def die_at(deadly: int, before: bool, work) -> bool:
    """Run `work` in a child that leaves without clean-up at its `deadly`-th operation; say whether it did."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def wrap(module, name):
            real = getattr(module, name)

            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                mine = count
                if mine == deadly and before:
                    os._exit(9)
                try:
                    return real(*args, **kwargs)
                finally:
                    if mine == deadly:
                        os._exit(9)

            setattr(module, name, counted)

        for name in ("fsync", "replace", "rename", "mkdir", "unlink", "open", "rmdir"):
            wrap(os, name)
        wrap(builtins, "open")
        wrap(atomic_io, "_exchange")
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def write_forever(target):
    for number in range(10_000):
        make(target, b"%d" % number)


def test_killed_at_any_moment_the_folder_is_whole(tmp_path):
    target = tmp_path / "x"
    make(target, b"0")
    for trial in range(10):
        child = multiprocessing.get_context("fork").Process(target=write_forever, args=(target,))
        child.start()
        time.sleep(0.01 + 0.013 * trial)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        settle(target)
        found = contents(target)
        assert found["b"] == found["a"] * 2 and set(found) == {"a", "b"}
        assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_needed_and_free_and_keeps_the_old(number, tmp_path, monkeypatch):
    make(tmp_path / "x", b"old")
    write_file(tmp_path / "y", b"old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"3 bytes needed, [\d,]+ bytes free"):
        write_file(tmp_path / "y", b"new")
    with pytest.raises(ResourceError, match="untouched"):
        make(tmp_path / "x", b"new")
    monkeypatch.undo()
    assert contents(tmp_path / "x")["a"] == b"old" and (tmp_path / "y").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "a", b"")
    write_file(tmp_path / "file", b"")
    with pytest.raises(VitrailError, match="a file is there"):
        make(tmp_path / "file", b"new")


def test_files_of_a_running_process_are_not_removed(tmp_path):
    with replace_folder(tmp_path / "x") as new:
        settle(tmp_path / "x")
        assert new.is_dir()


def test_an_uncreatable_folder_is_reported(tmp_path):
    write_file(tmp_path / "file", b"")
    with pytest.raises(VitrailError, match=r"The folder .*x cannot be made \(Not a directory\)"):
        make_folder(tmp_path / "file" / "x" / "y")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


NOWHERE = Path("/proc/vitrail")  # a file system in which nobody, root neither, makes files
no_proc = pytest.mark.skipif(not NOWHERE.parent.is_dir(), reason="this system has no /proc")


@no_proc
@pytest.mark.parametrize(
    "work",
    [lambda path: write_file(path, b"x"), check_writable, check_writable_folder, lambda path: make(path, b"x")],
)
def test_an_unwritable_path_is_reported_as_given(work):
    with pytest.raises(VitrailError, match=r"/proc/vitrail cannot be written \(.*\)\. Choose another place") as caught:
        work(NOWHERE)
    assert ".new-" not in str(caught.value) and "\n" not in str(caught.value)


@no_proc
def test_a_folder_below_an_unwritable_path_is_refused_before_any_work():
    with pytest.raises(VitrailError, match="/proc/vitrail/a/b cannot be written"):
        check_writable_folder(NOWHERE / "a" / "b")


def test_an_invalid_folder_is_refused_without_leftovers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "file", b"")
    with pytest.raises(VitrailError, match=r"^file is a file\. "):
        check_writable_folder("file")
    with pytest.raises(VitrailError, match=r"^file/x/y cannot be made: .*file is a file"):
        check_writable_folder("file/x/y")
    Path("link").symlink_to("nowhere")
    with pytest.raises(VitrailError, match=r"the link .*link leads nowhere"):
        check_writable_folder("link/x")
    Path("link").unlink()
    check_writable_folder("new/x/y")
    check_writable_folder(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_at_the_path_of_a_folder_is_named(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(VitrailError, match=r"taken cannot be written \(Is a directory\)"):
        write_file(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_full_disk_is_reported_with_the_given_path(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"Cannot write .*/x/a: ") as caught, replace_folder(tmp_path / "x") as new:
        write_file(new / "a", b"x")
    assert ".new-" not in str(caught.value)
