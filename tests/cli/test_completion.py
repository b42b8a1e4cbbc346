"""TAB, in a real bash (and zsh and fish where they are installed): the script is sourced and asked."""

import shutil
import subprocess

import pytest

from vitrail.cli import VERBS, completion
from vitrail.cli.completion import SHELLS, script
from vitrail.cli.flags import flags_of
from vitrail.models import list_models


@pytest.fixture(scope="module")
def bash_script() -> str:
    return script("bash")


def complete(bash_script: str, *words: str) -> list[str]:
    """Return bash's completions for the last of the words; bash itself cuts `a=b` into three."""
    ask = f'COMP_WORDS=("$@"); COMP_CWORD={len(words) - 1}; _vitrail; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", f"{bash_script}\n{ask}", "bash", *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["vitrail", ""], [*VERBS, "completion", "help"]),
        (["vitrail", "tr"], [verb for verb in VERBS if verb.startswith("tr")]),
        (["vitrail", "train", "--epo"], ["--epochs"]),
        (["vitrail", "train", "--model", "swin_tiny"], ["swin_tiny_patch4_window7_224"]),
        (["vitrail", "train", "model", "=", "swin_tiny"], ["swin_tiny_patch4_window7_224"]),
        (["vitrail", "train", "--precision", "="], ["auto", "fp32", "bf16"]),
        (["vitrail", "train", "data", "x", "--precision", "b"], ["bf16"]),
        (["vitrail", "models", "vit_huge"], list_models("vit_huge*")),
        (["vitrail", "data", "ch"], ["check"]),
        (["vitrail", "completion", ""], ["bash", "zsh", "fish"]),
        (["vitrail", "train", "pictures"], []),
    ],
)
def test_bash_completes_matching_words(bash_script, words, offered):
    assert complete(bash_script, *words) == offered


@pytest.mark.parametrize("verb", VERBS)
def test_bash_offers_every_flag_of_every_verb(bash_script, verb):
    from vitrail.cli import verb_class

    spellings = [spelling for flag in flags_of(verb_class(verb)) for spelling in flag.spellings]
    assert complete(bash_script, "vitrail", verb, "--") == [*[s for s in spellings if s.startswith("--")], "--help"]


def test_files_are_completed_if_no_word_matches(bash_script):
    assert "complete -o bashdefault -o default -F _vitrail vitrail" in bash_script


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_parses_the_script():
    subprocess.run(["zsh", "-n", "-c", script("zsh")], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_matching_words():
    ask = "complete -C'vitrail train --model swin_tiny'"
    done = subprocess.run(["fish", "-c", f"{script('fish')}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_has_every_verb_and_quotes_help_texts(shell):
    said = script(shell)
    assert all(verb in said for verb in VERBS)
    assert completion._quoted("it's") == "'it'\\''s'"


def test_the_command_prints_the_script(run, bash_script):
    assert run("completion", "bash").out == bash_script + "\n"
    assert run("completion", "bsh").err.startswith("error: Unknown shell 'bsh'. Did you mean: bash")
    assert run("completion").code == 2
