"""Compile the C++ of this folder for this machine, once, and load it.

Each `.cpp` is a separate library, compiled on first use; the headers are shared. A library is compiled again if its
source, a header that it includes, the compiler, its flags or the processor changes. Libraries that are requested
together are compiled in parallel. `CXX` names another compiler, `VITRAIL_CXXFLAGS` adds flags for these libraries
alone.
"""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch  # first, so that our libraries share the OpenMP runtime of torch

from vitrail.cache import beside, cache_folder, fingerprint
from vitrail.errors import VitrailError
from vitrail.native.block_sizes import best_block_sizes
from vitrail.native.cpu_features import cpu_flags
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.prototypes import bind

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
EXTRA_FLAGS = "VITRAIL_CXXFLAGS"
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Unavailable(VitrailError):
    """The native libraries are unavailable; the message has the reason."""


_FOUND: dict[str, ctypes.CDLL | str] = {}
"""Each requested library, or the reason of its failure: a failed compilation is not repeated."""
_SIZED: set[str] = set()
"""Files of the libraries that have the block sizes of this machine."""


def refusal(dtype: torch.dtype, *names: str) -> str | None:
    """Return the reason why native kernels in `dtype` are unavailable, or None if they are available.

    The first call on a machine compiles them, which takes a few seconds.

    Args:
        dtype: compute dtype.
        names: required libraries, in addition to the GEMM library.
    """
    if dtype not in RESIDUAL:
        return f"compiled operations know fp32 and bf16, not {dtype}"
    reason = missing("gemm", *names)
    if reason is not None:
        return reason
    if dtype == torch.bfloat16 and not library("gemm").vitrail_has_bfloat16():
        return "this processor has no products in bf16"
    return None


def missing(*names: str) -> str | None:
    """Return the reason why one of these libraries is unavailable, or None; they are compiled in parallel."""
    new = [name for name in dict.fromkeys(names) if name not in _FOUND]
    if new:
        with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as threads:
            _FOUND.update(zip(new, threads.map(_find, new), strict=True))
        _choose_blocks()
    return next((found for name in names if isinstance(found := _FOUND[name], str)), None)


def library(name: str) -> ctypes.CDLL:
    """Return the library of `name.cpp`, compiled if it is not in the cache.

    Raises:
        Unavailable: there is no compiler, or it failed.
    """
    if name not in _FOUND:
        _FOUND[name] = _find(name)
        _choose_blocks()
    found = _FOUND[name]
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def _find(name: str) -> ctypes.CDLL | str:
    try:
        made = build(name, compiler())
        try:
            return _load(made, name)
        except OSError:  # damaged, such as by a full disk: compile again, once
            made.unlink()
            return _load(build(name, compiler()), name)
    except VitrailError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be kept or loaded: {error}"


def _load(path: Path, name: str) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    bind(loaded, "\n".join(text for _, text in _texts(name)))
    return loaded


def _choose_blocks() -> None:
    """Set the block sizes of this machine in loaded libraries, once that of GEMMs is there to measure them."""
    gemm = _FOUND.get("gemm")
    if not isinstance(gemm, ctypes.CDLL):
        return
    new = [each for each in _FOUND.values() if isinstance(each, ctypes.CDLL) and each._name not in _SIZED]
    sizes = best_block_sizes(gemm, Path(gemm._name).name) if new else None
    for each in new:
        _SIZED.add(each._name)
        if sizes is not None and hasattr(each, "vitrail_set_blocks"):
            sizes.set(each)


Command = tuple[str, ...]
"""A compiler command: the path, and its arguments."""


def compiler() -> Command:
    """Return the C++ compiler of `CXX` (a command such as `ccache g++` too), or the first of the usual ones.

    Raises:
        Unavailable: there is none.
    """
    asked = os.environ.get("CXX")
    usual: list[Command] = [("g++",), ("clang++",), ("c++",)]
    for program, *words in [(asked,), _words(asked)] if asked else usual:  # a path may contain spaces
        found = shutil.which(program)
        if found is not None:
            return found, *words
    raise Unavailable(f"no C++ compiler ({asked or 'g++ or clang++ or c++'}); install g++ or clang, or name one in CXX")


def _words(asked: str) -> Command:
    try:
        return tuple(shlex.split(asked)) or (asked,)
    except ValueError as error:
        raise Unavailable(f"CXX is no command ({asked}): {error}") from None


def build(name: str, compile_with: Command) -> Path:
    """Compile `name.cpp` into the cache, unless it is there, and return the path of the library.

    Safe with concurrent processes: each compiles to a temporary file and renames it at the end. Temporary files of
    killed processes are removed.

    Raises:
        Unavailable: the compiler failed; the message ends with its output.
    """
    source, target = SOURCES / f"{name}.cpp", _place(name, compile_with)
    if target.exists():
        return target
    with beside(target) as folder:
        made = folder / target.name
        said = ""
        for threads in (("-fopenmp",), ()):  # without OpenMP: single-threaded
            command = [*compile_with, *_flags(), *own_flags(source.read_text()), *threads, "-o", str(made), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                os.replace(made, target)
                return target
            said = said or done.stderr
    raise Unavailable(f"{shlex.join(compile_with)} cannot build {source.name}: {said.strip()[-300:]}")


def own_flags(text: str) -> list[str]:
    """Return the flags in the line `// build: FLAGS` of a source file, which override the common ones.

    Example:
        >>> own_flags("// Exports.\\n// build: -ffp-contract=off\\n")
        ['-ffp-contract=off']
    """
    line = re.search(r"^// build: (.+)$", text, re.MULTILINE)
    return line[1].split() if line else []


def built(name: str) -> bool:
    """Return whether the library of `name.cpp` is in the cache, so that its first use costs nothing."""
    try:
        return _place(name, compiler()).exists()
    except VitrailError:
        return False


def _place(name: str, compile_with: Command) -> Path:
    """Return the cache path of the library; it has a hash of its sources, the compiler and this machine."""
    texts = _texts(name)
    machine = (platform.machine(), platform.processor(), cpu_flags(), compile_with, _version(compile_with))
    return cache_folder("native") / f"{name}-{fingerprint(texts, _flags(), machine)}.so"


def _flags() -> Command:
    """Return the compiler flags; the tests add warnings as errors."""
    return (*FLAGS, *os.environ.get(EXTRA_FLAGS, "").split())


def _texts(name: str) -> list[tuple[str, str]]:
    """Return name and text of the source file of a library and of each header that it includes, also indirectly.

    Example:
        >>> [file for file, _ in _texts("image_resize")]
        ['image_resize.cpp', 'arguments.h', 'resize.h']
    """
    found: dict[str, str] = {}
    open_files = [f"{name}.cpp"]
    while open_files:
        file = open_files.pop()
        if file not in found:
            found[file] = (SOURCES / file).read_text()
            open_files += _INCLUDE.findall(found[file])
    source, *headers = found.items()
    return [source, *sorted(headers)]


@cache
def _version(compile_with: Command) -> str:
    return subprocess.run([*compile_with, "--version"], capture_output=True, text=True, check=False).stdout
