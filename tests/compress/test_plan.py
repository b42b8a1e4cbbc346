"""The plan: each step is measured, and one that gains nothing or loses too much is taken back."""

from dataclasses import replace

import pytest
from small_models import small

from vitrail.bench.statistics import Quantiles
from vitrail.compress import plan as plans
from vitrail.compress.measure import Figures, Latency
from vitrail.compress.plan import Aim, plan
from vitrail.compress.settings import CompressSettings
from vitrail.errors import VitrailError

SPEED = {"tokens_keep": 0.9, "width": 1.2, "heads": 1.1, "depth": 1.3}
"""Factor of the speed of each edit; the models of these tests are their settings."""


def edited(settings):
    return [name for name in SPEED if getattr(settings, name) not in (None, 0.0)]


@pytest.fixture(autouse=True)
def models_that_are_settings(monkeypatch):
    """Offer each edit once, in the order of SPEED."""
    steps = {"tokens_keep": 0.7, "width": 0.75, "heads": 0.5, "depth": 9}

    def best(model, last, aim, probes, reference, useless):
        left = [name for name in SPEED if name not in useless | set(edited(last.settings))]
        settings = replace(last.settings, **{left[0]: steps[left[0]]}) if left else None
        return settings and (settings, settings, 0.0)

    def latency(before, after, *given, **named):
        ratio = 1.0
        for name in edited(after):
            ratio *= SPEED[name]
        return Latency(Quantiles.of([1.0]), Quantiles.of([1 / ratio]), Quantiles.of([ratio]), "")

    monkeypatch.setattr(plans, "_best_step", best)
    monkeypatch.setattr(plans, "measure_latency", latency)
    monkeypatch.setattr(plans, "figures", lambda model: Figures(1, 1, 1))
    monkeypatch.setattr(plans, "damage", lambda *given: 0.0)
    monkeypatch.setattr(plans, "reference_outputs", lambda *given: [])


def test_a_step_that_makes_nothing_faster_is_taken_back():
    told = []
    found = plan(CompressSettings(), Aim("target", 1.3), [], lambda one: (0.5, True, "%"), 1.0, told.append)
    assert found.verdict.startswith("reached") and edited(found.model) == ["width", "heads"]
    assert [one.figure for one in found.tried] == [0.5, None, 0.5, 0.5] and "taken back" in told[0]
    assert [row[0] for row in found.table()[1]][found.chosen].endswith(" *")


def test_a_step_that_loses_too_much_leaves_the_others():
    def evaluate(one):
        return 0.3 if one.width else 0.5, True, "%"

    found = plan(CompressSettings(), Aim("target", 1.3), [], evaluate, 1.0, lambda line: None)
    assert found.verdict.startswith("reached") and edited(found.model) == ["heads", "depth"]


def test_a_plan_that_can_do_nothing_states_why():
    def evaluate(one):
        return 0.1 if edited(one) else 0.5, True, "%"

    with pytest.raises(VitrailError, match="every next step would lose more than 1"):
        plan(CompressSettings(), Aim("target", 2.0), [], evaluate, 1.0, lambda line: None)


def test_fewer_tokens_are_tried_for_a_time_alone():
    for aim, wanted in ((Aim("target", 2.0), [0.8]), (Aim("size", 1e3), [])):
        steps = plans._next_settings(small("vit"), CompressSettings(), aim)
        assert [one.tokens_keep for one in steps if one.tokens_keep] == wanted
