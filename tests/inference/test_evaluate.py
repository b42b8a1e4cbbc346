"""An evaluation of a model whose metrics can be computed by hand."""

import json
from pathlib import Path

import pytest
import torch
from shades import Brightness, grey_set

from vitrail.data.dataset import ImageSet
from vitrail.errors import DataError, VitrailError
from vitrail.inference.evaluate import evaluate
from vitrail.tasks.data_url import decode
from vitrail.tasks.evaluation_file import read_evaluation, save_evaluation


def test_metrics_by_hand(brightness: Brightness, greys: ImageSet) -> None:
    result = evaluate(brightness, greys)
    assert (result.samples, result.top1.value, result.top5) == (16, 13 / 16, None)
    assert result.confusion == ((3, 0, 0, 1), (1, 3, 0, 0), (0, 0, 4, 0), (0, 1, 0, 3))
    assert [each.support for each in result.classes] == [4, 4, 4, 4]
    assert [each.id for each in result.errors] == ["grey/015.png", "grey/006.png", "grey/001.png"]
    assert [(each.label, each.predicted) for each in result.errors] == [
        ("dark", "white"),
        ("white", "dim"),
        ("dim", "dark"),
    ]
    assert [each.loss for each in result.errors] == sorted((each.loss for each in result.errors), reverse=True)
    assert [each.label for each in result.examples] == ["dark", "dim", "light", "white"]


def test_stored_images_are_the_model_inputs(brightness: Brightness, greys: ImageSet) -> None:
    worst = evaluate(brightness, greys).errors[0]
    assert decode(worst.image).getpixel((3, 3)) == 215
    assert decode(worst.image).size == (8, 8)


@pytest.mark.parametrize("batch", [1, 5, 16, 100])
def test_results_do_not_depend_on_the_batch(tiny: torch.nn.Module, batch: int) -> None:
    by_default, other = (evaluate(tiny, "digits", batch=size, optimize=False).to_dict() for size in (64, batch))
    times = {"seconds", "images_per_second", "batch", "calibration", "errors", "examples"}
    for key in by_default.keys() - times:
        assert by_default[key] == other[key], key
    assert by_default["calibration"]["nll"] == pytest.approx(other["calibration"]["nll"], abs=1e-5)
    assert [each["id"] for each in by_default["errors"]] == [each["id"] for each in other["errors"]]


def test_every_image_counts_once_in_small_and_large_splits(brightness: Brightness) -> None:
    for count in (1, 63, 64, 65, 129):
        seen: list[tuple[int, int]] = []
        result = evaluate(
            brightness, grey_set([10] * count, [0] * count), progress=lambda *at, seen=seen: seen.append(at)
        )
        assert result.samples == count == result.confusion[0][0]
        assert seen[-1] == (count, count)


def test_classes_are_matched_by_name(brightness: Brightness, greys: ImageSet) -> None:
    # The same images with the classes listed in another order, as a folder without "light" would list them.
    turned = ("white", "dim", "dark")
    keep = [i for i in range(len(greys)) if greys.labels[i] != 2]
    labels = [turned.index(greys.classes[greys.labels[i]]) for i in keep]
    part = ImageSet("part", turned, [greys.ids[i] for i in keep], labels, greys.store.take(torch.tensor(keep).numpy()))
    result, whole = evaluate(brightness, part), evaluate(brightness, greys)
    assert result.top1.value == 9 / 12
    assert result.labels == ("dark", "dim", "light", "white")
    assert result.confusion[0] == whole.confusion[0] and result.confusion[2] == (0, 0, 0, 0)
    assert result.classes[2].recall.value is None


def test_a_class_unknown_to_the_model_is_an_error(brightness: Brightness) -> None:
    with pytest.raises(VitrailError, match=r"1 of the 2 classes .* unknown to the model: pitch"):
        evaluate(brightness, grey_set([5, 9], [0, 1], classes=("dark", "pitch")))


def test_a_class_without_images_may_be_unknown(brightness: Brightness) -> None:
    assert evaluate(brightness, grey_set([5, 9], [0, 0], classes=("dark", "pitch"))).samples == 2


def test_a_model_without_names_takes_those_of_the_data(brightness: Brightness, greys: ImageSet) -> None:
    brightness.labels = None
    assert evaluate(brightness, greys).labels == greys.classes


def test_nan_scores_name_their_image(brightness: Brightness, greys: ImageSet) -> None:
    with torch.no_grad():
        brightness.centres[0] = torch.nan
    with pytest.raises(DataError, match=r"first for grey/000\.png"):
        evaluate(brightness, greys)


def test_evaluation_restores_the_training_mode(tiny: torch.nn.Module, greys: ImageSet) -> None:
    model = Brightness()
    model.train()
    evaluate(model, greys)
    assert model.training and not torch.is_inference_mode_enabled()


def test_json_and_back(brightness: Brightness, greys: ImageSet, tmp_path: Path) -> None:
    result = evaluate(brightness, greys)
    assert read_evaluation(save_evaluation(result, tmp_path / "evaluation.json")) == result
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result.to_dict()
    older = (tmp_path / "evaluation.json").read_text().replace('"image": "data:', '"picture": "data:')
    (tmp_path / "evaluation.json").write_text(older)
    assert '"picture"' in older and read_evaluation(tmp_path / "evaluation.json") == result
    for broken in (b"", b"[]", b'{"top1": 1}', b"\xff"):
        (tmp_path / "evaluation.json").write_bytes(broken)
        with pytest.raises(DataError, match="is not an evaluation"):
            read_evaluation(tmp_path / "evaluation.json")


def test_worst_limits_the_number_of_images(brightness: Brightness, greys: ImageSet) -> None:
    three = evaluate(brightness, greys)
    assert evaluate(brightness, greys, worst=2, batch=3).errors == three.errors[:2]
    assert evaluate(brightness, greys, worst=0).errors == ()


@pytest.mark.parametrize("split", ["tset", "everything"])
def test_a_mistyped_split_is_named(brightness: Brightness, split: str) -> None:
    with pytest.raises(VitrailError, match="split"):
        evaluate(brightness, "digits", split=split)


def test_all_refuses_data_that_is_split(brightness: Brightness) -> None:
    with pytest.raises(VitrailError, match="is split into train, val, test"):
        evaluate(brightness, "digits", split="all")
