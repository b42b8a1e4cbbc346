"""Words become a dataclass: every spelling that people know, and a plain sentence for every other."""

from dataclasses import dataclass
from typing import Literal

import pytest
from tyro.conf import Positional

from vitrail.cli import VERBS, verb_class
from vitrail.cli.arguments import ALIASES, canonical, parse
from vitrail.cli.flags import flags_of
from vitrail.cli.usage_errors import plainer
from vitrail.errors import VitrailError


@dataclass(frozen=True)
class Inner:
    """A part."""

    momentum: float = 0.9
    """Momentum."""


@dataclass(frozen=True)
class Verb:
    """A verb with one flag of each kind."""

    data: Positional[str]
    """Data."""
    epochs: int = 10
    """Epochs."""
    batch: int | Literal["auto"] = 8
    """Batch."""
    weight_decay: float = 0.05
    """Decay."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision."""
    ema: bool = True
    """Average."""
    set: tuple[str, ...] = ()
    """Settings."""
    inner: Inner = Inner()
    """Part."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("digits", Verb("digits")),
        ("data=digits", Verb("digits")),
        ("digits --epochs 3", Verb("digits", epochs=3)),
        ("digits --epochs=3", Verb("digits", epochs=3)),
        ("digits epochs=3", Verb("digits", epochs=3)),
        ("epochs=3 digits", Verb("digits", epochs=3)),
        ("digits --weight_decay 0.1", Verb("digits", weight_decay=0.1)),
        ("digits weight-decay=0.1", Verb("digits", weight_decay=0.1)),
        ("digits --wd 0.1", Verb("digits", weight_decay=0.1)),
        ("digits -b 32", Verb("digits", batch=32)),
        ("digits batch=-1", Verb("digits", batch=-1)),
        ("digits --batch -1", Verb("digits", batch=-1)),
        ("digits --batch auto", Verb("digits", batch="auto")),
        ("digits --no-ema", Verb("digits", ema=False)),
        ("digits ema=false", Verb("digits", ema=False)),
        ("digits --ema=off", Verb("digits", ema=False)),
        ("digits --ema False", Verb("digits", ema=False)),
        ("digits --ema", Verb("digits")),
        ("digits --no-ema=yes", Verb("digits", ema=False)),
        ("digits --set dim=48 depth=2", Verb("digits", set=("dim=48", "depth=2"))),
        ("digits --set epochs=48 --epochs 2", Verb("digits", set=("epochs=48",), epochs=2)),
        ("digits --inner.momentum 0.5", Verb("digits", inner=Inner(0.5))),
        ("digits inner.momentum=0.5", Verb("digits", inner=Inner(0.5))),
        ("--dataset digits", Verb("digits")),
        ("runs/a=b", Verb("runs/a=b")),
    ],
)
def test_every_spelling_means_the_same(line, expected):
    assert parse("verb", Verb, line.split()) == expected


@dataclass(frozen=True)
class Pair:
    """A verb with two words that stand alone, the second any number of times."""

    model: Positional[str]
    """Model."""
    pictures: Positional[tuple[str, ...]]
    """Pictures."""
    top: int = 5
    """Classes."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m a b", Pair("m", ("a", "b"))),
        ("pictures=a model=m", Pair("m", ("a",))),
        ("model=m pictures=a", Pair("m", ("a",))),
        ("--pictures a --model m", Pair("m", ("a",))),
        ("--pictures a b --model m", Pair("m", ("a", "b"))),
        ("pictures=a top=3 pictures=b model=m", Pair("m", ("a", "b"), 3)),
        ("a b model=m", Pair("m", ("a", "b"))),
        ("model=m a b", Pair("m", ("a", "b"))),
        ("m pictures=a", Pair("m", ("a",))),
        ("pictures=a m", Pair("m", ("a",))),
        ("pictures=a b model=m", Pair("m", ("a", "b"))),
        ("--top 3 m a", Pair("m", ("a",), 3)),
        ("m a --top 3 b", Pair("m", ("a", "b"), 3)),
    ],
)
def test_a_positional_given_by_name_is_accepted(line, expected):
    assert parse("pair", Pair, line.split()) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pictures=a", "model is missing: beside pictures=a, give model=VALUE too."),
        ("model=m model=n a", "model is given 2 times: m, n. Give it once."),
        ("--model --top 3", "model needs a value"),
        ("--top 3", "Missing:\n  MODEL: Model."),
    ],
)
def test_a_surplus_positional_is_refused(line, says):
    with pytest.raises(VitrailError) as caught:
        parse("pair", Pair, line.split())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("digits --epocs 3", "Unknown flag '--epocs'. Did you mean: --epochs?"),
        ("digits epocs=3", "Unknown flag '--epocs'. Did you mean: --epochs?"),
        ("digits --weigth-decay=3", "Did you mean: --weight-decay?"),
        ("digits -x", "Unknown flag '-x'."),
        ("digits epochs=three", "--epochs takes a whole number; got 'three'."),
        ("digits --weight-decay little", "--weight-decay takes a number; got 'little'."),
        ("digits batch=large", "--batch takes a whole number or auto; got 'large'."),
        ("digits precision=fp61", "Unknown --precision 'fp61'. Valid: bf16, fp32."),
        ("digits --epochs", "--epochs needs a value after it."),
        ("digits ema=maybe", "--ema is on or off; got 'maybe'."),
        ("digits more", "Nothing is done with: more."),
        ("digits --per-device-train-batch-size 8", "Unknown flag"),
        ("--data", "data needs a value"),
        ("", "Missing:\n  DATA: Data."),
    ],
)
def test_every_usage_error_is_one_sentence(line, says):
    with pytest.raises(VitrailError) as caught:
        parse("verb", Verb, line.split())
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6 and "─" not in str(caught.value)


def test_a_foreign_flag_is_accepted_and_the_own_name_reported(capsys):
    parse("verb", Verb, ["digits", "--batch-size", "32"])
    assert capsys.readouterr().err == "note: --batch-size is --batch here\n"


def test_a_file_whose_name_has_an_equals_sign_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "size=3.png").touch()
    assert parse("verb", Verb, ["size=3.png"]) == Verb("size=3.png")


def test_arguments_after_a_double_dash_are_not_parsed():
    assert canonical(flags_of(Verb), ["--", "epochs=3", "--epocs"]) == ["--", "epochs=3", "--epocs"]


def test_every_alias_maps_to_an_existing_flag():
    own = {flag.name for verb in VERBS for flag in flags_of(verb_class(verb))}
    assert set(ALIASES.values()) <= own


def test_a_box_without_unicode_is_read_too():
    box = " Value error \n -----------\n  Error parsing --lr: could not convert string to float: 'x' \n  -----\n  Help"
    assert plainer(box) == "--lr takes a number; got 'x'."
    box = " Required\n ------\n  Missing from vitrail verb:\n      DATA\n          Where it\n          is.\n  ----"
    assert plainer(box) == "Missing:\n  DATA: Where it is."


def test_unknown_text_is_passed_through():
    assert plainer("╭─ Other ─╮\n│ Something new. │\n╰───╯") == "Something new."
