"""Report of an evaluation: BLEU by length, examples, worst sentences."""

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.tasks.results import ReportSection

if TYPE_CHECKING:
    from vitrail.tasks.translate.evaluation import TranslationEvaluation


def evaluation_sections(evaluation: "TranslationEvaluation") -> list[ReportSection]:
    """Return the sections of the report."""
    titles = {"BLEU by length": "lengths.html", "Examples": "examples.html", "Worst sentences": "worst.html"}
    return [ReportSection(title, Markup(render(name, {"evaluation": evaluation}))) for title, name in titles.items()]


def render(template: str, values: dict[str, Any]) -> str:
    """Return a template of this folder with its values."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("vitrail.tasks.translate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
