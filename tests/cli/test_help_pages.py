"""The help of every verb: words that a user knows, and no default that is nothing."""

import dataclasses

import pytest

from vitrail.cli import VERBS, verb_class
from vitrail.cli.flags import flags_of
from vitrail.cli.help_format import as_shown


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_every_flag_without_python_types(run, verb: str) -> None:
    page = " ".join(run(verb, "--help").out.replace("│", " ").split())
    assert all(spelling in page for flag in flags_of(verb_class(verb)) for spelling in flag.spellings)
    assert not [sign for sign in ("{None}", "(default: )", "(default: '')", "(default: None)", "[TEXT") if sign in page]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_the_fields_and_defaults_of_the_verb(verb: str) -> None:
    cls = verb_class(verb)
    own, shown = ({f.name: f.default for f in dataclasses.fields(kind)} for kind in (cls, as_shown(cls)))
    assert own == shown


def test_brackets_mark_optional_arguments(run) -> None:
    assert "usage: vitrail models [-h] [PATTERN]" in run("models", "--help").out
    assert "MODEL [INPUTS ...]" in run("predict", "--help").out
    assert "check|info|convert DATA" in run("data", "--help").out


def test_train_help_lists_every_kind_of_data(run) -> None:
    page = " ".join(run("train", "--help").out.replace("│", " ").split())
    assert "digits, a folder, a .csv or .jsonl table, a .tar.gz, or torchvision:NAME@FOLDER" in page
