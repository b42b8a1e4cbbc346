"""Words of a first day that were corrected after they misled."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vitrail
from vitrail.errors import VitrailError
from vitrail.tasks.text_inputs import check_vocabulary
from vitrail.text.learning import learn_characters
from vitrail.training.config import TrainConfig
from vitrail.training.dry_run import Plan
from vitrail.training.recipe import with_recipe
from vitrail.weights.load import load_weights

SMALL: dict[str, Any] = {"dim": 16, "depth": 1, "num_heads": 1}


def test_a_model_folder_of_other_sizes_names_them(tmp_path: Path):
    """`--weights OWN_RUN --model NAME`: the folder states the sizes, so nobody has to read them off the shapes."""
    own = vitrail.save_model(vitrail.create_model("text_decoder_tiny", vocab_size=40, **SMALL), tmp_path / "own")
    with pytest.raises(VitrailError) as caught:
        load_weights(vitrail.create_model("text_decoder_tiny", **SMALL), own)
    lines = str(caught.value).splitlines()
    assert "1 shape differs" in lines[1] and "(40, 16), needed (256, 16)" in lines[1]
    assert lines[2] == "The file is a text_decoder_tiny with vocab_size=40." and "--model out" in lines[3]
    load_weights(vitrail.create_model("text_decoder_tiny", vocab_size=40, **SMALL), own)  # what the message says


def test_a_model_folder_of_another_model_names_it(tmp_path: Path):
    own = vitrail.save_model(vitrail.create_model("text_decoder_tiny", vocab_size=40, **SMALL), tmp_path / "own")
    with pytest.raises(VitrailError, match="The file is a text_decoder_tiny: leave --model out") as caught:
        load_weights(vitrail.create_model("gpt2", vocab_size=40, **SMALL), own)
    assert len(str(caught.value).splitlines()) <= 6


def test_the_words_of_the_message_are_those_that_a_run_takes(tmp_path: Path):
    own = vitrail.save_model(vitrail.create_model("text_decoder_tiny", vocab_size=40, **SMALL), tmp_path / "own")
    config, _ = with_recipe(TrainConfig(data="digits", weights=str(own)))
    with pytest.raises(VitrailError) as caught:
        load_weights(vitrail.create_model("text_decoder_tiny"), own)
    assert f"with {' '.join(config.set)}." in str(caught.value)


def test_a_vocabulary_larger_than_the_table_names_the_size():
    model = SimpleNamespace(config=SimpleNamespace(vocab_size=3), variant="gpt2")
    vocabulary = learn_characters("abcdef")
    with pytest.raises(VitrailError, match=f"--set vocab_size={len(vocabulary)}"):
        check_vocabulary(vocabulary, model)


@pytest.mark.parametrize(("trained", "words"), [(9, "9, all trained"), (3, "9, 3 trained")])
def test_a_plan_says_how_many_weights_are_trained_and_when_it_validates(trained: int, words: str):
    config = TrainConfig(data="digits", batch=4, epochs=2)
    numbers: dict[str, Any] = {"warm_up_seconds": 0.0, "step_seconds": 0.1, "validation_seconds": 1.0}
    plan = Plan(config, "title", {"train": 8}, 9, trained, 4, 2, 10, 20, finish_seconds=1.0, **numbers)
    text = "\n".join(plan.lines())
    assert f"parameters  {words}" in text and "validation  1.0 s, every epoch" in text
