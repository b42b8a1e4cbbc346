"""The family tree: its page and drawing are current, its parents exist, and no curve leads back in time."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vitrail.models import FAMILIES
from vitrail.report.family_tree import Family, families, family_facts
from vitrail.report.family_tree.ancestry import ANCESTRY
from vitrail.report.family_tree.drawing import to_svg
from vitrail.report.family_tree.page import to_markdown

DOCS = Path(__file__).parents[2] / "docs"
MESSAGE = "run: python -m vitrail.report.family_tree docs"


def test_page_and_drawing_are_current():
    assert (DOCS / "families.md").read_text() == to_markdown(families()), MESSAGE
    assert (DOCS / "families.svg").read_text() == to_svg(families()), MESSAGE


def test_every_family_has_a_sentence_and_older_parents():
    assert [family.name for family in families()] == list(FAMILIES)
    for family in families():
        assert len(family.change.split()) > 3 and 2010 < family.year < 2030
        for parent in family.parents:
            assert parent in FAMILIES and parent != family.name
            assert family_facts(parent).year <= family.year
    assert set(ANCESTRY) <= set(FAMILIES)


def test_every_family_and_parent_is_drawn():
    tree = ElementTree.fromstring(to_svg(families()))
    names = {text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")}
    curves = list(tree.iter("{http://www.w3.org/2000/svg}path"))
    assert set(FAMILIES) <= names
    assert len(curves) == sum(len(family.parents) for family in families())


def test_boxes_do_not_overlap():
    tree = ElementTree.fromstring(to_svg(families()))
    boxes = [(r.get("x"), r.get("y")) for r in tree.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(boxes) == len(set(boxes)) == len(FAMILIES)


def test_a_long_name_stays_in_its_box():
    tree = ElementTree.fromstring(to_svg(families()))
    width = float(list(tree.iter("{http://www.w3.org/2000/svg}rect"))[1].get("width", 0))
    for text in tree.iterfind(".//{*}a/{*}text"):
        letters = 7 * len(text.text or "")  # pixels at 12 px, on average
        assert float(text.get("textLength", letters)) < width, text.text


@pytest.mark.parametrize("parents", [("b",), ("a",), ()])
def test_a_cycle_within_a_year_still_draws(parents):
    tree = [Family("a", "A", "x", 2021, parents, "classify", 1), Family("b", "B", "y", 2021, ("a",), "classify", 1)]
    assert to_svg(tree).count("<rect") == 3


def test_every_task_has_a_colour_of_its_group():
    fills = {family.name: (family.task, family_fill(family.name)) for family in families()}
    assert {fill for task, fill in fills.values() if task in ("points", "parts")} == {"#f3e8ff"}
    assert {fill for task, fill in fills.values() if task == "classify"} == {"#dbeafe"}
    assert len({fill for _, fill in fills.values()}) == 5


def family_fill(name: str) -> str | None:
    """Return the colour of the box of a family."""
    drawing = ElementTree.fromstring(to_svg(families()))
    (link,) = (a for a in drawing.iter("{http://www.w3.org/2000/svg}a") if a.get("href") == f"#{name}")
    return link.find("{http://www.w3.org/2000/svg}rect").get("fill")
