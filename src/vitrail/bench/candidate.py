"""Benchmark candidates: a name, and the variants to run the model with; the fastest variant counts."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError

Answer = Callable[[Tensor], Tensor]
"""From a batch of images `(B, C, Y, X)` in fp32 to logits `(B, K)`; it returns when they are there."""


class CandidateUnavailable(VitrailError):
    """A candidate cannot run; the message has the reason and the package to install."""


class Variant(NamedTuple):
    """One configuration of a candidate.

    Args:
        name: name in the table, such as `bf16 weights`.
        build: function from our model (in fp32, evaluation mode, read-only) and an example batch to a new module with
            the same weights. The cold start is timed from here.
        start: function from that module, which it may modify, and the batch to `Answer`, which is only called with
            batches of the example's shape.
    """

    name: str
    build: Callable[[nn.Module, Tensor], nn.Module]
    start: Callable[[nn.Module, Tensor], Answer]

    def prepare(self, model: nn.Module, example: Tensor) -> Answer:
        """Build and start."""
        return self.start(self.build(model, example), example)


@dataclass(frozen=True)
class Candidate:
    """A library or an engine that can run a model.

    Args:
        name: name on the command line.
        ways: function from our model, an example batch and a precision to the variants to try.
        needs: required packages.
        extra: the extra of Vitrail that installs them.
        ours: whether it is Vitrail itself.
        fragile: whether it may crash the process, so that it is tried in a subprocess first.
        int8: whether it supports int8; else it computes in bf16 if int8 is requested.
    """

    name: str
    ways: Callable[[nn.Module, Tensor, str], list[Variant]]
    needs: tuple[str, ...] = ()
    extra: str = "bench"
    ours: bool = False
    fragile: bool = False
    int8: bool = False

    def precision(self, asked: str) -> str:
        """Return its compute precision for a requested one.

        Example:
            >>> Candidate("pillow", lambda *_: []).precision("int8")
            'bf16'
        """
        return "bf16" if asked == "int8" and not self.int8 else asked

    def open(self, model: nn.Module, example: Tensor, precision: str) -> list[Variant]:
        """Return the variants to try.

        Raises:
            CandidateUnavailable: a package is missing, or this model or machine is not supported.
        """
        missing = [package for package in self.needs if find_spec(package) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise CandidateUnavailable(f"{' and '.join(missing)} {verb} not installed: pip install {' '.join(missing)}")
        return self.ways(model, example, self.precision(precision))


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Convert any exception of another library inside the block to `CandidateUnavailable`.

    Raises:
        CandidateUnavailable: the block raised.
    """
    try:
        yield
    except CandidateUnavailable:
        raise
    except Exception as error:
        said = str(error).replace(tempfile.gettempdir() + os.sep, "").strip().partition("\n")[0]
        raise CandidateUnavailable(f"{what} failed: {type(error).__name__}: {said[:200] or 'no message'}") from error


def opened(package: str) -> ModuleType:
    """Import an installed package.

    Raises:
        CandidateUnavailable: its import fails.
    """
    with foreign(f"importing {package}"):
        return import_module(package)
