"""Who takes part: a name, and the ways in which it may run this model; the fastest way is the one that counts."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError

Answer = Callable[[Tensor], Tensor]
"""From a batch of images `(B, C, Y, X)` in fp32 to logits `(B, K)`; it returns when they are there."""


class Unavailable(VitrailError):
    """A contender cannot take part; the message says why, and what to install."""


class Variant(NamedTuple):
    """One way to run a model.

    Args:
        name: what the table calls it, such as `bf16 weights`.
        build: from our model (in fp32, evaluation mode, not to be changed) and an example batch to a module of its
            own, with the same weights. Seconds until the first answer are counted from here.
        start: from that module, which it may change, and the batch to `Answer`. Only batches of the example's shape
            will be asked.
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
        name: what the user calls it.
        ways: from our model, an example batch and a precision to the ways to try.
        needs: packages that must be installed.
        extra: the extra of Vitrail that brings them.
        ours: whether it is Vitrail itself.
        fragile: whether it may take the whole process down with it, so that it is tried in another process first.
        int8: whether it knows int8; who does not, computes in bf16 where int8 is asked for.
    """

    name: str
    ways: Callable[[nn.Module, Tensor, str], list[Variant]]
    needs: tuple[str, ...] = ()
    extra: str = "bench"
    ours: bool = False
    fragile: bool = False
    int8: bool = False

    def precision(self, asked: str) -> str:
        """Return what it computes in where a precision is asked for.

        Example:
            >>> Candidate("pillow", lambda *_: []).precision("int8")
            'bf16'
        """
        return "bf16" if asked == "int8" and not self.int8 else asked

    def open(self, model: nn.Module, example: Tensor, precision: str) -> list[Variant]:
        """Return the ways to try.

        Raises:
            Unavailable: a package is missing, or this model or machine is not for it.
        """
        missing = [package for package in self.needs if find_spec(package) is None]
        if missing:
            verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
            raise Unavailable(
                f"{' and '.join(missing)} {verb} not installed: pip install 'vitrail[{self.extra}]' brings {them}."
            )
        return self.ways(model, example, self.precision(precision))


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Let whatever another library raises in the block become the reason why it cannot take part.

    Raises:
        Unavailable: the block raised.
    """
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        said = str(error).replace(tempfile.gettempdir() + os.sep, "").strip().partition("\n")[0]
        raise Unavailable(f"{what} failed: {type(error).__name__}: {said[:200] or 'no message'}") from error


def opened(package: str) -> Any:
    """Import a package that is there, or say why it does not come up.

    Raises:
        Unavailable: its import fails.
    """
    with foreign(f"importing {package}"):
        return import_module(package)
