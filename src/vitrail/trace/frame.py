"""A frame of a trace, and the trace."""

from dataclasses import dataclass, field
from typing import Any

from vitrail.trace.record import Call


@dataclass
class TraceFrame:
    """One step of a forward pass.

    Args:
        title: name of the step.
        group: the stage and block, or the part of the model.
        path: name of the module.
        formulas: formulas with the numbers of this model put in.
        text: a sentence of explanation.
        shape_in: shape of the input.
        shape_out: shape of the output.
        parameters: weights that no earlier frame has counted.
        multiply_adds: of this step; None if they cannot be counted.
        views: images of the step, as JSON values.
    """

    title: str
    group: str
    path: str
    formulas: list[str] = field(default_factory=list)
    text: str = ""
    shape_in: list[int] = field(default_factory=list)
    shape_out: list[int] = field(default_factory=list)
    parameters: int = 0
    multiply_adds: int | None = 0
    views: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class ModelTrace:
    """A model walked through by one input.

    Args:
        model: name of the model.
        facts: label, value and note of the headline figures.
        frames: the steps in order.
        image: the input as the model saw it, as a `data:` URL; empty for text.
        size: rows and columns of that image.
        lens: class scores by layer; see `lens`.
        twins: slow and fast form of each attention; see `twins`.
        notes: what is missing, and why.
        command: command line that makes the page again.
        calls: the recorded calls, for tests and tools; no part of the page.
    """

    model: str
    facts: list[tuple[str, str, str]]
    frames: list[TraceFrame]
    image: str = ""
    size: tuple[int, int] = (0, 0)
    lens: dict[str, Any] = field(default_factory=dict)
    twins: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    command: str = ""
    calls: Call | None = None
