"""HTML page of a study: verdict, figures, tables and the command, in one file without external resources."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import vitrail
from vitrail.machine.system_info import processor, versions
from vitrail.study.plan import StudyOptions
from vitrail.tasks.formatting import duration
from vitrail.tasks.page_design import page_glass, page_head

if TYPE_CHECKING:
    from vitrail.study.run import StudyAnswer


def render_page(answer: "StudyAnswer", options: StudyOptions, command: str = "") -> str:
    """Render the page of an answer, in the style of the training report.

    Args:
        answer: the answer.
        options: settings of the run.
        command: command line that repeats it.
    """
    environment = Environment(
        loader=PackageLoader("vitrail.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = with_code
    return environment.get_template("study.html").render(
        head=page_head(f"{answer.plan.question} – Vitrail study"),
        glass=page_glass(),
        answer=answer,
        plan=answer.plan,
        options=options,
        conclusion=answer.conclusion,
        command=command,
        facts=_facts(answer, options),
        version=vitrail.__version__,
        written=datetime.now(UTC).strftime("%d %B %Y at %H:%M UTC"),
    )


def with_code(text: str) -> Markup:
    """Return a text as HTML, with spans between backticks as code.

    Example:
        >>> str(with_code("`vitrail bench` & more"))
        '<code>vitrail bench</code> &amp; more'
    """
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _facts(answer: "StudyAnswer", options: StudyOptions) -> dict[str, Any]:
    """Return data, seeds, time and machine."""
    machine = processor()
    facts = {
        "data": options.data,
        "model": options.model,
        "weights": options.weights,
        "seeds": options.seeds,
        **dict(options.chosen),
        "cells": f"{answer.done} of {answer.total}",
        "time of the cells": duration(answer.seconds),
        "processor": f"{machine['name']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}",
        "software": ", ".join(f"{name} {version}" for name, version in versions().items() if version),
    }
    return {name: value for name, value in facts.items() if value}
