"""One disagreement between paper, official code and other libraries."""

from typing import NamedTuple


class Erratum(NamedTuple):
    """A detail on which sources disagree, or that is often got wrong.

    Args:
        family: the architecture.
        detail: the question, as a noun phrase.
        sources: the statements, as `source: statement`.
        ours: whom this library follows, and why.
        test: the test that fails if the detail is wrong, `path::function`.
    """

    family: str
    detail: str
    sources: tuple[str, ...]
    ours: str
    test: str
