"""Exported files: the model's logits at any batch and size, in their own runtime, with what a user needs inside."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SMALL

import vitrail
from vitrail.cli import main
from vitrail.errors import DataError, VitrailError
from vitrail.explain.blocks import backbone_of
from vitrail.explain.heatmap import heatmap
from vitrail.explain.options import ExplainOptions
from vitrail.export.export import export
from vitrail.export.metadata import METADATA, read_metadata
from vitrail.export.program import export_program, quiet
from vitrail.export.runtime import open_exported
from vitrail.export.symbolic_neighborhoods import SymbolicNeighborhoodAttention
from vitrail.export.symbolic_windows import SymbolicWindowAttention
from vitrail.export.verify import compare
from vitrail.grid import Grid
from vitrail.inference.flops import count_macs
from vitrail.inference.model_loading import find_model
from vitrail.kernels.attention.reference import attend
from vitrail.models import create_model
from vitrail.parts.adaptive_pooling import means
from vitrail.parts.attend import Attend
from vitrail.parts.even_blocks import EvenBlocks
from vitrail.parts.input_arrays import spread
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted, MaskedPadding, PadThenRoll, RollThenPad
from vitrail.tasks.program import TensorSpec
from vitrail.weights.folder import save_model

TINY_SWIN = {"dim": 8, "depths": (2,), "num_heads": (2,), "window_size": 4, "image_size": 32, "num_classes": 3}


def randomised(name, **fields):
    model = create_model(name, **fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def test_an_openvino_file_without_its_tensors_names_the_file(tmp_path):
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(DataError, match=r"keeps its tensors in .*model\.bin, which is missing"):
        open_exported(tmp_path / "model.xml")


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("cut", [PadThenRoll, RollThenPad, AlwaysShifted, MaskedPadding])
def test_symbolic_windows_are_the_windows(cut, shift):
    mixer = WindowAttention(8, num_heads=2, window_size=4, shift=shift, cut=cut).eval()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for height, width in ((4, 4), (8, 12), (9, 6), (4, 13), (7, 5)):
        x, grid = torch.randn(2, height * width, 8), Grid(height, width)
        got, want = SymbolicWindowAttention(mixer)(x, grid), mixer(x, grid)
        assert (got - want).abs().max() < 1e-5 * want.abs().max()


def test_symbolic_even_blocks_are_the_blocks():
    mixer = WindowAttention(8, num_heads=2, window_size=3, cut=EvenBlocks, position=NoPosition()).eval()
    for height, width in ((6, 6), (9, 7), (4, 13)):
        x, grid = torch.randn(2, height * width, 8), Grid(height, width)
        assert (SymbolicWindowAttention(mixer)(x, grid) - mixer(x, grid)).abs().max() < 1e-5


@pytest.mark.parametrize("dilation", [1, 2])
def test_symbolic_neighborhoods_are_the_neighborhoods(dilation):
    mixer = NeighborhoodAttention(8, num_heads=2, kernel_size=3, dilation=dilation).eval()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for height, width in ((6, 6), (9, 7), (2, 13), (1, 5)):
        x, grid = torch.randn(2, height * width, 8), Grid(height, width)
        got, want = SymbolicNeighborhoodAttention(mixer)(x, grid), mixer(x, grid)
        assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("n", [1, 4, 7, 12])
def test_matrix_of_means_is_adaptive_pooling(n):
    x = torch.randn(2, 3, n)
    want = torch.nn.functional.adaptive_avg_pool1d(x, 4)
    assert (x @ means(n, 4, x).mT - want).abs().max() < 1e-6


@pytest.mark.parametrize("batch", [(2,), (2, 5)])
def test_attention_of_a_program_has_four_axes_and_a_contiguous_result(batch):
    """Blocks of HaloNet have an axis more, and a bias for each block or for all."""
    q, k = torch.randn(*batch, 3, 4, 8), torch.randn(*batch, 3, 6, 8)
    for bias in (torch.randn(*batch, 3, 4, 6), torch.randn(3, 1, 6), None):
        given = (q, k, k) if bias is None else (q, k, k, bias)
        with quiet():
            program = torch.export.export(Attend(), given)
        [node] = [each for each in program.graph.nodes if "scaled_dot_product_attention" in str(each.target)]
        assert node.meta["val"].ndim == 4
        found = program.module()(*given)
        assert found.is_contiguous()
        torch.testing.assert_close(found, attend(q, k, k, bias), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """A model folder and its ONNX file, written by the command."""
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("swin")
    model = randomised("swin_tiny_patch4_window7_224", **TINY_SWIN)
    save_model(model, folder / "model", labels=("a", "b", "c"))
    assert main(["export", str(folder / "model"), "--to", "onnx", "--out", str(folder / "swin.onnx")]) == 0
    return model, folder


def test_swin_runs_in_onnx_runtime_at_any_batch_and_size(swin):
    model, folder = swin
    opened = open_exported(folder / "swin.onnx")
    for shape in ((1, 3, 32, 32), (3, 3, 50, 23), (2, 3, 17, 64), (1, 3, 16, 16)):
        images = torch.randn(shape)
        with torch.no_grad():
            error, same = compare(opened(images), model(images), TensorSpec("logits", ("batch", 3), classes=1))
        assert error < 1e-4 and same


def test_the_size_of_a_pooled_map_stays_open_in_the_second_trace(tmp_path):
    """The ONNX exporter traces again; Fourier features of cells that follow from a pooling have the size of the map."""
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    small = SMALL["perceiver conv"]
    model = create_model(small.variant, **{**small.overrides, "depth": 1, "repeats": 1}).eval()
    done = export(model, "onnx", tmp_path / "pooled.onnx", sizes="any")
    assert set(done.sizes.values()) == {"any"} and max(each.error for each in done.compared) < 1e-5


def test_predict_runs_the_file_with_its_own_preprocessing_and_names(swin, tmp_path, capsys):
    _, folder = swin
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    answers = []
    for source in (folder / "model", folder / "swin.onnx"):
        assert main(["predict", str(source), str(tmp_path / "a.png"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[0])["top"])
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"] and abs(one["probability"] - other["probability"]) < 1e-4


LAYERS = (
    "explain FILE IMAGE",
    "trace FILE IMAGE",
    "bench FILE --peers none",
    "cost FILE",
    "embed FILE IMAGE --out v.npz",
    "probe FILE DATA",
    "export FILE --to pt2 --out m.pt2",
    "compress FILE --mlp 0.25 --out small",
    "compress FILE --target 2x --data DATA --out small",
    "compress FILE --sensitivity s.html --data DATA",
    "convert FILE --out new",
    "train DATA --weights FILE",
    "runs soup FILE FILE --out soup",
)
"""Commands that need layers or weights."""


def photos(folder):
    """Write two images of each of three classes for each split."""
    for split in ("train", "val", "test"):
        for number, name in enumerate("aabbcc"):
            path = folder / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (40 * number, 20, 200)).save(path)
    return folder


@pytest.mark.parametrize("command", LAYERS)
def test_verbs_that_need_layers_or_weights_ask_for_the_folder(swin, tmp_path, monkeypatch, capsys, command):
    file, data = swin[1] / "swin.onnx", photos(tmp_path / "data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    places = {"FILE": file, "IMAGE": data / "test/a/0.png", "DATA": data}
    assert main([str(places.get(word, word)) for word in command.split()]) == 2
    error = capsys.readouterr().err
    assert f"{file} holds the outputs of its task alone, and " in error
    assert "Use the model folder that it was exported from." in error
    assert {path.name for path in Path().iterdir()} <= {"runs"}


def test_a_file_is_no_model_to_optimize_or_save_from_python(swin, tmp_path):
    opened = open_exported(swin[1] / "swin.onnx")
    looks = (
        lambda: vitrail.optimize(opened),
        lambda: vitrail.save_model(opened, tmp_path / "model"),
        lambda: heatmap(opened, torch.zeros(1, 3, 32, 32), ExplainOptions("saliency")),
        lambda: count_macs(opened),
        lambda: backbone_of(opened),
    )
    for look in looks:
        with pytest.raises(VitrailError, match="holds the outputs of its task alone"):
            look()


def test_the_report_of_a_file_has_no_maps(swin, tmp_path):
    data, pages = photos(tmp_path / "data"), []
    for source in ("model", "swin.onnx"):
        words = [swin[1] / source, data, "--split", "test", "--report", tmp_path / "report.html"]
        assert main(["evaluate", *map(str, words)]) == 0
        pages.append((tmp_path / "report.html").read_text())
    assert ["Where the model looks" in page for page in pages] == [True, False]
    assert "holds the outputs" not in pages[1]


def test_a_served_file_offers_nothing_inside(swin):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    from harness import Harness, png

    from vitrail.serving.limits import Limits
    from vitrail.serving.served_model import serve_model

    folder = swin[1]
    models = [serve_model(name, find_model(folder / name), Limits()) for name in ("model", "swin.onnx")]
    with Harness(models) as server:
        whole, file = (server.get(f"/v1/models/{each.name}").json() for each in models)
        assert whole["parameters"] > 0 and whole["attention"] and whole["heatmaps"] and whole["traceable"]
        assert file["parameters"] is None and file["heatmaps"] == []
        assert file["attention"] is False and file["traceable"] is False
        card = server.get("/v1/models/swin.onnx/card").json()
        assert card["parameters"] is None and card["multiply_adds"] is None
        image = base64.b64encode(png(size=(40, 40))).decode()
        for route, options, code in (
            ("attention", {}, "no_maps"),
            ("heatmap", {"kind": "rollout"}, "no_maps"),
            ("trace", {}, "no_trace"),
        ):
            body = {"input": image, "options": options}
            reply = server.post(f"/v1/models/swin.onnx/{route}", body)
            assert reply.status == 400 and reply.code == code and b"is an exported file" in reply.body
            assert server.post(f"/v1/models/model/{route}", body).status == 200
        assert server.post("/v1/models/swin.onnx/predict", {"input": image}).status == 200


def test_metadata_is_read_without_a_runtime(swin):
    model, folder = swin
    found = read_metadata(folder / "swin.onnx")
    assert found is not None and found["task"] == "classify" and found["labels"] == ["a", "b", "c"]
    assert found["preprocess"] == json.loads(json.dumps(model.preprocess.to_dict()))
    assert found["inputs"] == [{"name": "images", "shape": ["batch", 3, "height", "width"], "dtype": "float32"}]
    assert read_metadata(folder / "model" / "README.md") is None


def test_a_file_without_metadata_and_a_damaged_one_are_refused(swin, tmp_path):
    import onnx

    _, folder = swin
    proto = onnx.load(str(folder / "swin.onnx"))
    kept = [each for each in proto.metadata_props if each.key != METADATA]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, str(tmp_path / "plain.onnx"))
    with pytest.raises(DataError, match="no metadata of Vitrail"):
        open_exported(tmp_path / "plain.onnx")
    (tmp_path / "broken.onnx").write_bytes((folder / "swin.onnx").read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be opened"):
        open_exported(tmp_path / "broken.onnx")


def test_exported_program_of_pytorch_and_a_fixed_size(tmp_path):
    model = randomised("nat_mini", dim=8, depths=(1,), num_heads=(2,), image_size=32, num_classes=3)
    done = export(model, "pt2", tmp_path / "nat", sizes="fixed")
    assert done.files == [tmp_path / "nat.pt2"] and done.sizes == {"height": 32, "width": 32}
    with pytest.raises(VitrailError, match="pickle"):
        open_exported(done.files[0])


def test_a_file_that_differs_is_removed(tmp_path, monkeypatch):
    model = randomised("vit_tiny_patch16_224", depth=1, dim=8, num_heads=1, patch_size=8, image_size=16, num_classes=3)
    monkeypatch.setattr("vitrail.export.verify.TOLERANCE", -1.0)
    with pytest.raises(VitrailError, match="differs from the model"):
        export(model, "pt2", tmp_path / "vit.pt2", sizes="fixed")
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_refused_by_name(tmp_path, monkeypatch):
    model = create_model("vit_tiny_patch16_224", depth=1, image_size=32)
    with pytest.raises(VitrailError, match="onnx"):
        export(model, "onx", tmp_path / "a")
    monkeypatch.setattr("vitrail.export.libraries.find_spec", lambda name: None)
    with pytest.raises(VitrailError, match="pip install executorch"):
        export(model, "executorch", tmp_path / "a")
    with pytest.raises(VitrailError, match=r"ends in \.pt2"):
        export(model, "pt2", tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ["crossvit", "perceiver original", "perceiver conv"])
def test_sizes_that_follow_from_the_image_stay_open(name):
    """A second scale of the image, and Fourier features of each cell; the program is compared off the traced size."""
    model = create_model(SMALL[name].variant, **{**SMALL[name].overrides, "depth": 1}).eval()
    assert export_program(model, "any").any_size


def test_spread_places_are_those_of_linspace():
    """Bit for bit: the frequencies of a Perceiver multiply a difference by 350."""
    for n in (1, 2, 3, 7, 56, 64, 223, 224, 500):
        assert torch.equal(spread(torch.arange(n).double()), torch.linspace(-1, 1, n)), n


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_exports(name):
    model = create_model(SMALL[name].variant, **SMALL[name].overrides).eval()
    program = export_program(model)
    assert program.any_size or program.reason
