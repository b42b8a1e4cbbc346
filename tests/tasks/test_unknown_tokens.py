"""Tokens outside the vocabulary are counted where a text is read."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

import vitrail
from vitrail.cli import main
from vitrail.models import create_model
from vitrail.text.learning import learn_characters, learn_vocabulary
from vitrail.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random language model of the characters a to d and the blank."""
    vocabulary = learn_characters("abcd ")
    sizes: dict[str, Any] = {"dim": 16, "depth": 1, "num_heads": 2, "max_length": 32}
    model = create_model("gpt2", vocab_size=len(vocabulary), **sizes).eval()
    model.inputs = vocabulary
    folder = tmp_path_factory.mktemp("speaker") / "model"
    vitrail.save_model(model, folder)
    return str(folder)


def test_vocabularies_count_what_they_lack() -> None:
    characters = learn_characters("abc")
    assert characters.encode(["abc", "xay", ""]).unknown == (0, 2, 0)
    assert str(characters.encode(["xay"])) == "2 tokens are not in the vocabulary"
    assert learn_vocabulary(["abc"], 300).encode(["xay"]).unknown == (0,)  # of bytes, it lacks nothing
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0))  # its token has no name
    assert Vocabulary(unigram.to_str()).encode(["ab", "xb", "xa"]).unknown == (0, 1, 1)


def test_a_prompt_says_what_the_model_does_not_know(speaker: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", speaker, "ab xyz", "--tokens", "2"]) == 0
    assert "3 of 6 tokens are not in the vocabulary" in capsys.readouterr().err
    assert main(["generate", speaker, "ab cd", "--tokens", "2"]) == 0
    assert "not in the vocabulary" not in capsys.readouterr().err
    assert main(["predict", speaker, "--text", "xyz", "--tokens", "2", "--json"]) == 0
    assert '"unknown": 3' in capsys.readouterr().out


def test_figures_of_an_unknown_text_are_qualified(speaker: str, tmp_path: Path) -> None:
    for name, text, count in (("known", "abcd " * 40, 0), ("other", "wxyz " * 40, 160)):
        (tmp_path / f"{name}.txt").write_text(text)
        found = vitrail.evaluate(speaker, str(tmp_path / f"{name}.txt"), split="all")
        assert found.unknown == count and ("not in the vocabulary" in found.summary()) == bool(count)
