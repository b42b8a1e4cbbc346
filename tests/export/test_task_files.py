"""Exported files of every task: the results of the model folder, through the same predictor."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from small_texts import small

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.export.export import export
from vitrail.export.runtime import open_exported
from vitrail.export.triton import triton_config
from vitrail.models import create_model
from vitrail.text.learning import learn_characters
from vitrail.weights.folder import save_model

pytestmark = pytest.mark.filterwarnings("ignore")
WINDOWS = {"dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
RESTORER = {"depths": (2,), "dim": 12, "num_heads": 2}


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def photo(path, size=(45, 38)):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def printed(capsys, *words):
    assert main(["predict", *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_are_classified_by_a_file_that_holds_its_vocabulary(runtime, tmp_path, capsys):
    vocabulary = learn_characters("a good or bad film")
    model = small("bert classes", vocab_size=len(vocabulary))
    model.task, model.inputs = "sentiment", vocabulary
    save_model(model, tmp_path / "model", labels=("good", "bad", "neither"))
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "texts.onnx")]) == 0
    assert "any length" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("good film\na bad bad film a film\nfilm\n")
    folder, file = (printed(capsys, tmp_path / name, tmp_path / "lines.txt") for name in ("model", "texts.onnx"))
    assert len(folder) == 3
    for one, other in zip(folder, file, strict=True):
        assert one["top"][0]["label"] == other["top"][0]["label"]
        assert one["top"][0]["probability"] == pytest.approx(other["top"][0]["probability"], abs=1e-4)
    reasons = [printed(capsys, tmp_path / name, "--text", "good film", "--explain") for name in ("model", "texts.onnx")]
    for (one, effect), (other, exported) in zip(*(each[0]["words"] for each in reasons), strict=True):
        assert one == other and effect == pytest.approx(exported, abs=1e-3)
    (tmp_path / "data.csv").write_text("text,label\ngood film,good\nbad film,bad\na film,neither\n")
    for name in ("model", "texts.onnx"):
        words = [tmp_path / name, tmp_path / "data.csv", "--split", "all", "--report", tmp_path / "report.html"]
        assert main(["evaluate", *map(str, words)]) == 0
        assert "3 sentences" in capsys.readouterr().out and "<html" in (tmp_path / "report.html").read_text()
    for verb, *words in (("explain", "--text", "good"), ("trace", "good film"), ("cost",)):
        assert main([verb, str(tmp_path / "texts.onnx"), *words]) == 2
        assert "holds the outputs of its task alone" in capsys.readouterr().err


@pytest.mark.slow
def test_restored_images_of_a_file_are_those_of_the_folder(runtime, tmp_path):
    model = create_model("swinir_light_x2", **RESTORER).eval()
    save_model(model, tmp_path / "model")
    done = export(model, "onnx", tmp_path / "restore.onnx")
    assert done.sizes == {"height": "any", "width": "any"}, str(done)
    pixels = []
    for name in ("model", "restore.onnx"):
        words = [tmp_path / name, photo(tmp_path / "a.png"), "--save", tmp_path / f"out_{name}", "--json"]
        assert main(["predict", *map(str, words)]) == 0
        written = next((tmp_path / f"out_{name}").glob("*.png"))
        pixels.append(np.asarray(Image.open(written)).astype(int))
    words = [tmp_path / "a.png", "--weights", tmp_path / "restore.onnx", "--out", tmp_path / "restored"]
    assert main(["restore", *map(str, words)]) == 0
    assert np.array_equal(np.asarray(Image.open(next((tmp_path / "restored").glob("*.png")))), pixels[1])
    assert pixels[0].shape == (76, 90, 3) and np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.slow
def test_masks_of_a_file_are_those_of_the_folder(runtime, tmp_path, capsys):
    fields = {"backbone": "swin_tiny_patch4_window7_224", "backbone_config": tuple(WINDOWS.items())}
    model = create_model("upernet", **fields, channels=8, auxiliary_channels=8, image_size=64, num_classes=3).eval()
    model.labels = ("sky", "road", "car")
    save_model(model, tmp_path / "model")
    done = export(model, "onnx", tmp_path / "masks.onnx")
    assert done.sizes == {"height": "any", "width": "any"}, str(done)
    image = photo(tmp_path / "a.png", (90, 71))
    one, other = (printed(capsys, tmp_path / name, image)[0] for name in ("model", "masks.onnx"))
    assert one.keys() == other.keys() and one["classes"] == other["classes"]


def test_a_file_of_one_size_refuses_another(runtime, tmp_path):
    model = create_model("vit_tiny_patch16_224", dim=8, depth=1, num_heads=1, image_size=32, num_classes=3).eval()
    done = export(model, "triton", tmp_path / "vit", sizes="fixed")
    assert [file.relative_to(tmp_path).as_posix() for file in done.files] == ["vit/1/model.onnx", "vit/config.pbtxt"]
    check_triton(runtime, tmp_path / "vit")
    opened = open_exported(tmp_path / "vit/1/model.onnx")
    assert opened(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(VitrailError, match=r"got \(1, 3, 48, 32\)"):
        opened(torch.zeros(1, 3, 48, 32))


def check_triton(runtime, folder):
    """Compare the configuration with the ONNX file that it describes."""
    text = (folder / "config.pbtxt").read_text()
    session = runtime.InferenceSession(str(folder / "1/model.onnx"))
    assert f'name: "{folder.name}"' in text and 'platform: "onnxruntime_onnx"' in text
    assert int(re.search(r"max_batch_size: (\d+)", text)[1]) > 1 and "dynamic_batching {" in text
    kinds = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}
    blocks = re.findall(r'name: "(\w+)"\s+data_type: (\w+)\s+dims: \[ ([-\d, ]+) \]', text)
    tensors = [*session.get_inputs(), *session.get_outputs()]
    assert len(blocks) == len(tensors)
    for (name, kind, dims), tensor in zip(blocks, tensors, strict=True):
        stated = [-1 if isinstance(each, str) else each for each in tensor.shape]
        assert name == tensor.name and kind == kinds[tensor.type] and stated[0] == -1
        assert [int(each) for each in dims.split(",")] == stated[1:]


def test_triton_configuration_names_classes_and_dynamic_dimensions():
    ids = {"name": "ids", "shape": ["batch", "length"], "dtype": "int64"}
    logits = {"name": "logits", "shape": ["batch", 2], "dtype": "float32"}
    text = triton_config("texts", {"inputs": [ids], "outputs": [logits], "labels": ["no", "yes"]})
    assert "dims: [ -1 ]" in text and "TYPE_INT64" in text and text.count("labels.txt") == 1
    assert text.count("{") == text.count("}") and text.count("[") == text.count("]")
