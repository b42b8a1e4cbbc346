"""The scripts of `benchmarks/` that measure speed: their peers compute the same, and their reports have the results."""

import argparse
import json
import re
from argparse import Namespace
from datetime import date
from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import neighborhood
from vitrail.machine.matmul_peak import Product
from vitrail.models import family_of, list_models
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend
from vitrail.parts.window_partition import PadThenRoll
from vitrail.weights.folder import save_model

FEW = ["--rounds", "2", "--seconds", "0"]
SMALL_NAT = ModelSpec("nat_tiny", imgsz=64, set=("dim=32", "depths=1,1", "num_heads=1,2", "num_classes=5"))


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of every table."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(("side", "shift"), [(7, 0), (14, 0), (14, 3), (21, 2)])
def test_both_window_attention_kernels_agree(benchmarks, side, shift):
    operators, grid, heads = benchmarks("operators"), Grid(side, side), 2
    qkv, bias = torch.randn(3, grid.tokens, 3 * heads * operators.WIDTH), torch.randn(heads, 49, 49)
    cut = PadThenRoll.of(grid, 7, shift)
    addend = operators.addend_of(bias, cut, qkv).expand(3, -1, -1, -1, -1).flatten(0, 1)
    by_parts = operators.window_by_parts(qkv, bias, grid, cut, heads)
    torch.testing.assert_close(operators.window_by_sdpa(qkv, addend, grid, cut.shift, heads), by_parts)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_candidates_for_few_keys_compute_the_same(benchmarks, dtype, near):
    for case in benchmarks("operators").few_keys_cases(1, dtype, blocks=((60, 49, 2, 1), (9, 16, 1, 1))):
        for call in case.calls.values():
            assert (call().float() - case.expected).abs().max() < near * case.expected.abs().max()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_window_attention_agrees(benchmarks, dtype, near):
    operators, grid, heads = benchmarks("operators"), Grid(14, 14), 2
    if operators.refusal(dtype) is not None:
        pytest.skip(operators.refusal(dtype))
    qkv, bias = torch.randn(3, grid.tokens, 3 * heads * operators.WIDTH), torch.randn(heads, 49, 49)
    cut = PadThenRoll.of(grid, 7, 3)
    expected = operators.window_by_parts(qkv, bias, grid, cut, heads)
    got = operators.native_window(qkv.to(dtype), bias, cut, heads)().float()
    assert (got - expected).abs().max() <= near * expected.abs().max()


def test_a_window_that_is_the_map_is_plain_attention(benchmarks):
    operators, grid = benchmarks("operators"), Grid(7, 7)
    q, k, v = torch.randn(3, 2, 49, operators.WIDTH)
    bias = torch.randn(1, 49, 49)
    got = operators.window_by_sdpa(torch.cat([q, k, v], -1), bias[None].expand(2, -1, -1, -1), grid, (0, 0), 1)
    torch.testing.assert_close(got, scaled_dot_product_attention(q, k, v, attn_mask=bias))


@pytest.mark.parametrize(("height", "width", "kernel_size"), [(7, 7, 7), (9, 8, 7), (5, 11, 3), (12, 20, 5)])
def test_unfold_is_neighborhood_attention(benchmarks, height, width, kernel_size):
    q, k, v = torch.randn(3, 2, height, width, 2, 4)
    bias = torch.randn((2 * kernel_size - 1) ** 2, 2)
    expected = neighborhood.backends[-1].run(q, k, v, bias, kernel_size, 1)
    torch.testing.assert_close(benchmarks("neighborhood").unfold_attend(q, k, v, bias, kernel_size), expected)


@torch.inference_mode()
def test_a_peer_operator_replaces_every_own_one(benchmarks):
    peers, model, images = benchmarks("neighborhood"), SMALL_NAT.build(), torch.randn(2, 3, 64, 64)
    other = peers.with_operator(model, peers.unfold_attend)
    assert sum(isinstance(module, peers.Instead) for module in other.modules()) == 2
    assert not any(isinstance(module, NeighborhoodAttend) for module in other.modules())
    assert sum(isinstance(module, NeighborhoodAttend) for module in model.modules()) == 2
    torch.testing.assert_close(other(images), model(images))


def test_missing_natten_is_reported_with_the_install_command(benchmarks, monkeypatch):
    peers = benchmarks("neighborhood")
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(VitrailError, match="pip install natten"):
        peers.check_natten()


def test_report_of_a_nat_model(benchmarks, monkeypatch, capsys):
    peers = benchmarks("neighborhood")
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(peers, "ModelSpec", lambda name, imgsz: SMALL_NAT)
    assert peers.main([*FEW, "--batch", "2", "--precision", "fp32"]) == 0
    page = capsys.readouterr().out
    errors = {row[0]: float(row[3]) for row in rows(page)[1:]}
    assert errors["vitrail"] == 0.0 and errors["unfold"] < 1e-4 and "natten flex did not take part" in page


@pytest.fixture
def small_operators(benchmarks, monkeypatch):
    """Both operators in two small shapes each."""
    operators = benchmarks("operators")
    swin, nat = ((14, 1, 0, 2), (14, 1, 3, 5)), ((8, 1, 0, 3), (7, 2, 0, 4))
    cases = {"window": partial(operators.window_cases, blocks=swin)}
    cases["neighborhood"] = partial(operators.neighborhood_cases, blocks=nat)
    monkeypatch.setattr(operators, "OPERATORS", {name: (name.title(), make) for name, make in cases.items()})
    return operators


def test_report_of_operators(small_operators, tmp_path, capsys):
    assert small_operators.main([*FEW, "--batch", "1", "--out", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert (tmp_path / f"operators-{date.today().isoformat()}.md").read_text() == page.rstrip() + "\n"
    assert len(re.findall("^## ", page, re.MULTILINE)) == 4 and "- Processor: " in page
    measured = [row for row in rows(page) if row[4] not in ("", "error") and "no bias" not in row[1]]
    assert {row[1] for row in measured} >= {"vitrail parts", "torch SDPA", "vitrail tiled_sdpa", "unfold"}
    assert "vitrail native" in page  # measured, or listed with why not
    assert max(float(row[4]) for row in measured) < 5e-2
    shapes = {
        "14 x 14, 1 heads (2 x)",
        "14 x 14, 1 heads, shifted (5 x)",
        "8 x 8, 1 heads (3 x)",
        "7 x 7, 2 heads (4 x)",
    }
    assert {row[0] for row in rows(page)} == {"shape", "all blocks", *shapes}


def test_no_file_is_written_by_default(small_operators, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_operators.main([*FEW, "--batch", "1", "--operators", "window", "--precisions", "fp32"])
    assert list(tmp_path.iterdir()) == [] and "vitrail parts" in capsys.readouterr().out


def test_all_blocks_are_the_sum_of_the_blocks_round_by_round(benchmarks):
    operators = benchmarks("operators")
    cases = [operators.Case("", blocks, (), {}, torch.zeros(1), {}) for blocks in (2, 3)]
    times = [{"a": Timings(((1.0,), (2.0,)))}, {"a": Timings(((10.0,), (30.0,)))}]
    assert operators._together(list(zip(cases, times, strict=True)))["a"].rounds == (32.0, 94.0)


def test_every_family_of_the_catalogue_is_measured(benchmarks):
    images = dict.fromkeys(map(family_of, list_models(task="classify")))
    assert [family_of(name) for name in benchmarks("families").FAMILIES] == list(images)


def test_report_of_families(benchmarks, monkeypatch, capsys):
    families = benchmarks("families")
    product = Product("linear 2 x 3 x 4", 48, lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    monkeypatch.setattr(families, "best_product", lambda dtype: product)
    words = ["--measure", "vit_tiny_patch16_224", "--models", "deit_tiny_distilled_patch16_224", "no_such_model"]
    assert families.main([*FEW, *words, "--imgsz", "32", "--batch", "1", "--precision", "fp32"]) == 0
    page = capsys.readouterr().out
    table = [row for row in rows(page) if row[0] != "model"]
    assert {row[0] for row in table} == {"vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"}
    assert {row[3] for row in table if row[0] == "vit_tiny_patch16_224"} == {"1.00 (1.00 to 1.00)"}
    assert {row[5] for row in table} == {"yes"} and "no_such_model is not in the catalogue" in page


def test_a_rate_over_another_is_taken_round_by_round(benchmarks):
    mine, other = Timings(((1.0,), (2.0,))), Timings(((2.0,), (4.0,)))
    assert benchmarks("families")._rates(30, mine, 20, other) == (3.0, 3.0, 3.0, 2)


TRAINING = [*FEW, "--model", "vit_tiny_patch16_224", "--imgsz", "32", "--batch", "2", "--precision", "fp32"]


@pytest.fixture
def training(benchmarks, monkeypatch):
    """The benchmark of a training step, its candidates in this process and its allocator left alone."""
    training = benchmarks("training")

    class Here:
        def __init__(self, name, model, options):
            try:
                self.step = training.build(name, argparse.Namespace(**{**vars(options), "model": [model]}))
            except training.CandidateUnavailable as error:
                self.said = {"missing": str(error)}
            else:
                self.said = {**training.warm_up(self.step), "peak": 7 << 20, "held": 2 << 20}

        def __call__(self):
            return self.step()

        def end(self):
            pass

    monkeypatch.setattr(training, "Alone", Here)
    monkeypatch.setattr(training, "disable_malloc_trim", lambda: True)
    return training


def test_a_training_step_is_the_same_for_all(training, capsys):
    assert training.main(TRAINING) == 0
    ours, *timms = rows(capsys.readouterr().out)[1:]
    assert [ours[0], *(row[0] for row in timms)] == ["vitrail", "timm", "timm, memory kept"]
    assert ours[4:6] == ["7", "5"]  # memory held before is not the model's
    for theirs in timms:
        assert float(ours[7]) == pytest.approx(float(theirs[7]), rel=1e-4)
        for mine, loss in zip(ours[6].split(), theirs[6].split(), strict=True):
            assert float(mine) == pytest.approx(float(loss), rel=1e-4)


def test_neighborhoods_are_trained_by_other_operators_to_the_same_losses(training, capsys):
    small = ["--imgsz", "32", "--set", "depths=1,1,2,1", "--batch", "2", "--precision", "fp32"]
    assert training.main([*FEW, "--model", "nat_mini", "dinat_mini", *small]) == 0
    page = capsys.readouterr().out
    assert page.count("did not take part") == 4  # timm has neither
    assert [row[0] for row in rows(page)][1:4] == ["vitrail", "unfold", "tiles"]
    assert "unfold" not in page[page.index("dinat_mini, fp32") :]  # which knows no dilation


def test_other_losses_do_not_count(training, monkeypatch, capsys):
    def other_weights(model, side, **changes):
        return ModelSpec("vit_tiny_patch16_224", imgsz=32, seed=1).build()

    monkeypatch.setattr(training, "from_timm", other_weights)
    assert training.main(TRAINING) == 1 and "do not count" in capsys.readouterr().out


def test_losses_alone_are_not_enough(training):
    said = {"losses": [7.0, 6.0], "norms": [2.0, 1.0]}
    assert training.apart([said, said]) == 0
    assert training.apart([said, {**said, "norms": [2.0, 1.1]}]) == pytest.approx(0.1)


def test_a_step_updates_every_weight(benchmarks):
    model = ModelSpec("vit_tiny_patch16_224", imgsz=32, set=("depth=1",)).build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    benchmarks("training").Step(model, torch.randn(2, 3, 32, 32), 1000, "bf16")()
    assert model.training and not any(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_single_candidate_prints_one_line_per_batch(benchmarks):
    training = benchmarks("training")
    options = argparse.Namespace(
        model=["vit_tiny_patch16_224"], imgsz=32, set=["depth=1"], batch=2, precision="fp32", threads=1
    )
    alone = training.Alone("vitrail", options.model[0], options)
    assert alone.said["peak"] > 1 << 24 and len(alone.said["losses"]) == len(alone.said["norms"]) == 2
    assert alone() < alone.said["losses"][0]  # it learns
    alone.process.kill()
    with pytest.raises(RuntimeError, match="ended with -9"):
        alone._answer()
    alone.end()


def test_missing_packages_are_reported(benchmarks, monkeypatch, capsys):
    training = benchmarks("training")

    def missing(name, options):
        raise training.CandidateUnavailable("timm has no such model.")

    monkeypatch.setattr(training, "build", missing)
    assert training.main([*TRAINING, "--alone", "timm"]) == 0
    assert json.loads(capsys.readouterr().out) == {"missing": "timm has no such model."}


FOLDER = [*FEW, "--model", "vit_tiny_patch16_224", "--imgsz", "32", "--batch", "2"]


def test_report_of_a_folder(benchmarks, capsys):
    assert benchmarks("folder").main([*FOLDER, "--count", "3", "--size", "64", "48"]) == 0
    page = capsys.readouterr().out
    assert "3 images, batches of 2" in page
    assert [row[0] for row in rows(page)[1:]] == ["optimized, bf16", "found out on the spot, bf16"]


def test_a_folder_by_the_plain_model_is_set_against_the_plain_model(benchmarks):
    folder = benchmarks("folder")
    asked = Namespace(model="vit_tiny_patch16_224", imgsz=32, precision="fp32", ways=["plain"])
    chosen, forms = folder.ways(asked)
    assert list(chosen) == ["plain"] and list(forms) == ["plain"]
    assert chosen["plain"].model is forms["plain"] and not chosen["plain"].optimize


def test_synthetic_jpegs_have_the_requested_size(benchmarks, tmp_path):
    from PIL import Image

    benchmarks("folder").draw(tmp_path, 2, (50, 30))
    images = [Image.open(path) for path in sorted(tmp_path.iterdir())]
    assert [image.size for image in images] == [(50, 30)] * 2 and images[0].tobytes() != images[1].tobytes()


def test_a_corrupt_image_aborts_the_folder_benchmark(benchmarks, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(VitrailError, match="1 images cannot be read"):
        benchmarks("folder").main([*FOLDER, "--images", str(tmp_path)])


def test_report_of_loading(benchmarks, capsys):
    words = ["--count", "3", "--size", "64", "48", "--imgsz", "32", "--small", "8", "--augment", "photo", "small"]
    assert benchmarks("loading").main([*FEW, *words]) == 0
    page = capsys.readouterr().out
    assert "3 photographs at 32, batches of 3" in page and "8 small images at 32, batches of 8" in page
    assert [row[0] for row in rows(page)[1:] if row[0] != "augmentation"] == ["photo", "small"]


def test_loaders_with_different_images_are_refused(benchmarks):
    loading = benchmarks("loading")
    one, other = (
        loading.loader(loading.small_images(4), name, 32, 4, 0, loading.PLAIN) for name in ("none", "small-strong")
    )
    with pytest.raises(VitrailError, match="differ"):
        loading.check(one, other)


def test_report_of_draft_decoding(benchmarks, capsys, tmp_path):
    benchmarks("folder").draw(tmp_path, 2, (200, 170))
    weights = tmp_path / "weights"
    save_model(ModelSpec("vit_tiny_patch16_224", imgsz=32, set=("num_classes=5", "depth=1")).build(), weights)
    words = ["--model", str(weights), "--source", str(tmp_path / "*.jpg"), "--left", "1", "3"]
    assert benchmarks("draft").main([*FEW, *words, "--imgsz", "16"]) == 0
    page = rows(capsys.readouterr().out)[1:]
    assert [row[1] for row in page] == ["whole, bf16", "1 times or more", "3 times or more, as `predict --draft`"]
    assert page[1][3].startswith("1.") and page[2][3].startswith("4.")
    with pytest.raises(VitrailError, match="large enough"):
        benchmarks("draft").main([*FEW, *words, "--imgsz", "160"])
