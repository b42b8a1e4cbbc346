"""Sensitivity by layer, mixed formats under a budget, the command, and binary codes against a loop."""

import pytest
import torch
from small_models import small

from vitrail.cli import main
from vitrail.compress.binary_codes import BinaryCodes
from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.compress.compress import compress
from vitrail.compress.measure import figures
from vitrail.compress.sensitivity import Sensitivity, layer_sensitivity, mixed_formats
from vitrail.compress.sensitivity_page import sensitivity_page
from vitrail.compress.settings import CompressSettings
from vitrail.edits.quantize import quantizable_layers, quantize_weights
from vitrail.errors import DataError, VitrailError
from vitrail.weights.folder import load_model, save_model


@pytest.fixture(scope="module")
def probes():
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    return [CalibrationBatch(lambda model: model(images))]


@pytest.fixture(scope="module")
def found(probes):
    torch.manual_seed(0)
    model = small("vit")
    return model, layer_sensitivity(model, probes)


def test_sensitivity_is_that_of_one_layer_alone(found, probes):
    model, all_found = found
    assert len(all_found) == 3 * len(quantizable_layers(model)) and not model.edits
    one = next(each for each in all_found if each.format == "int8")
    reference = reference_outputs(model, probes)
    again = small("vit")
    again.load_state_dict(model.state_dict())
    quantize_weights(again, {one.layer: "int8"})
    assert damage(again, probes, reference) == pytest.approx(one.loss, rel=0.2)
    whole = sum(value.nbytes for value in model.state_dict().values())
    assert one.saved == whole - sum(value.nbytes for value in again.state_dict().values())


def test_a_mixed_plan_stays_in_its_budget_and_a_larger_budget_saves_more(found, probes):
    model, all_found = found
    saved = {}
    for budget in (0.02, 0.2):
        formats, loss = mixed_formats(model, all_found, probes, budget)
        assert loss <= budget
        table = {(one.layer, one.format): one.saved for one in all_found}
        saved[budget] = sum(table[pair] for pair in formats.items())
    assert saved[0.2] > saved[0.02] > 0
    with pytest.raises(VitrailError, match="larger budget"):
        mixed_formats(model, all_found, probes, 1e-9)


def test_formats_that_save_most_per_loss_come_first(found, probes):
    rows = [Sensitivity("a", "int8", 0.1, 100), Sensitivity("a", "int4", 10.0, 150), Sensitivity("b", "int4", 0.1, 300)]
    from vitrail.compress.sensitivity import _steps

    assert [(one.layer, one.format) for one in _steps(rows)] == [("b", "int4"), ("a", "int8"), ("a", "int4")]


def test_the_page_has_every_layer_and_marks_the_plan(found):
    all_found = found[1]
    layer = all_found[0].layer
    text = sensitivity_page("vit", all_found, {layer: "int8"}, "vitrail compress <x>")
    assert all(one.layer in text for one in all_found) and text.count(" *</text>") == 1 and "&lt;x&gt;" in text


@pytest.mark.parametrize(
    "settings",
    [
        CompressSettings(weights_bits="8"),
        CompressSettings(weights_bits="4", mlp=0.5),
        CompressSettings(weights_bits="codebook", rank_share=0.5),
        CompressSettings(weights_bits="mixed", weights_loss=0.05),
        CompressSettings(tokens_merge=2),
        CompressSettings(tokens_keep=0.7, weights_bits="8"),
        CompressSettings(round_weights="4"),
    ],
    ids=lambda settings: settings.words(),
)
def test_edits_combine_and_survive_a_folder(settings, probes, tmp_path):
    model = small("vit", dim=48)
    made = compress(model, settings, probes, lambda text: None)
    loaded = load_model(save_model(made, tmp_path / "made"))
    with torch.no_grad():
        assert torch.allclose(probes[0].run(loaded), probes[0].run(made), atol=1e-5)
    before, after = figures(model), figures(made)
    assert after.multiply_adds is not None and before.multiply_adds is not None
    if settings.weights_bits is not None:
        assert after.size < before.size
    if settings == CompressSettings(weights_bits="8"):
        assert after.parameters == before.parameters and after.multiply_adds == before.multiply_adds
    if settings.tokens_merge:
        assert after.multiply_adds < before.multiply_adds


def test_settings_that_contradict_each_other_are_refused():
    for wrong in (
        {"tokens_merge": 2, "tokens_keep": 0.5},
        {"tokens_keep": 1.0},
        {"weights_bits": "8", "round_weights": "8"},
        {"weights_bits": "mixed", "weights_loss": 0.0},
    ):
        with pytest.raises(VitrailError):
            CompressSettings(**wrong)
    with pytest.raises(VitrailError, match="data"):
        compress(small("vit"), CompressSettings(weights_bits="mixed"))


def test_the_command_writes_folder_and_page(tmp_path, capsys):
    sizes = dict(dim=32, depth=1, num_heads=2, patch_size=4, image_size=8, num_classes=10)
    model = save_model(small("vit", **sizes), tmp_path / "model", labels=[str(digit) for digit in range(10)])
    words = ["compress", str(model), "--data", "digits", "--samples", "16"]
    page, out = tmp_path / "page.html", tmp_path / "small"
    assert main([*words, "--weights-bits", "4", "--tokens-merge", "1", "--out", str(out)]) == 0
    assert "weights quantized: " in capsys.readouterr().out and load_model(out).edits[-1].kind == "quantize_weights"
    assert main([*words, "--sensitivity", str(page)]) == 0 and "channel_mixer.fc1" in page.read_text()


def test_binary_search_equals_a_loop_over_bits():
    embeddings, queries = torch.randn(50, 70), torch.randn(3, 70)
    codes = BinaryCodes.of(embeddings)
    assert codes.nbytes == 50 * 2 * 8
    index, distance = codes.search(queries, k=5)
    mean = embeddings.mean(0)
    for m in range(3):
        apart = [
            sum(int((e > c) != (q > c)) for e, q, c in zip(row, queries[m], mean, strict=True)) for row in embeddings
        ]
        order = sorted(range(50), key=lambda n: (apart[n], n))[:5]
        assert index[m].tolist() == order and distance[m].tolist() == [apart[n] for n in order]


def test_binary_codes_are_read_back_and_other_files_refused(tmp_path):
    codes = BinaryCodes.of(torch.randn(5, 70))
    codes.save(tmp_path / "codes.npz", list("abcde"))
    again, names = BinaryCodes.load(tmp_path / "codes.npz")
    assert names == tuple("abcde") and (again.words == codes.words).all() and torch.equal(again.mean, codes.mean)
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no file of codes"):
        BinaryCodes.load(tmp_path / "other.npz")


def test_binary_codes_find_near_embeddings():
    embeddings = torch.randn(200, 256)
    index, distance = BinaryCodes.of(embeddings).search(embeddings[:20] + 0.3 * torch.randn(20, 256), k=300)
    assert index[:, 0].tolist() == list(range(20)) and index.shape == (20, 200) and (distance[:, 0] < 60).all()
    with pytest.raises(VitrailError, match="channels"):
        BinaryCodes.of(embeddings).search(torch.randn(1, 8))
    with pytest.raises(VitrailError, match="finite"):
        BinaryCodes.of(torch.tensor([[float("nan")]]))
