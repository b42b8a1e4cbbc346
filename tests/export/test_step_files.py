"""Exported steps of decoding, detectors and LSTMs: the results of the model folder, by the same commands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_texts import small

from vitrail.cli import main
from vitrail.data.pairs import SentencePairs
from vitrail.errors import VitrailError
from vitrail.export.export import export
from vitrail.export.padded_lstm import PaddedLSTM
from vitrail.export.program import export_program
from vitrail.export.runtime import open_exported
from vitrail.generation.generate import generate
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.detection.fixed_size import FixedSizeDetector
from vitrail.parts.recurrent import LSTM
from vitrail.tasks.detect.program import agree, decode
from vitrail.tasks.native_decoding import decoder_of
from vitrail.tasks.step_program import language_program, translation_program
from vitrail.tasks.text_inputs import pad_ids
from vitrail.tasks.translate.batch import PairBatch
from vitrail.tasks.translate.training import encode_pairs, pair_loss
from vitrail.text.learning import learn_characters, learn_vocabulary
from vitrail.weights.folder import save_model

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = "a small dog runs in the snow, and you see it."
TINY = (("depth", 1), ("dim", 24), ("num_heads", 2), ("patch_size", 8))
DETECTOR = {"backbone_config": TINY, "channels": 8, "hidden": 16, "image_size": 64, "num_classes": 3}


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def with_words(name, task, **sizes):
    vocabulary = learn_vocabulary([TEXT], 300) if task == "translate" else learn_characters(TEXT)
    model = small(name, vocab_size=len(vocabulary), **sizes)
    model.task, model.inputs = task, vocabulary
    return model


def steps(spec, ids, *others):
    """Run the module of a step program token by token; return its scores."""
    given, found = spec.encode(*others, ids[:, :1]) if others else spec.encode(ids[:, :1]), []
    for place in range(ids.shape[1]):
        logits, *cache = spec.module(*given)
        found.append(logits)
        before = given[1 : len(given) - len(cache)]
        if others:
            before = (before[0][:, :0], before[1])  # the source was read
        elif before:
            before = (before[0] + 1,)
        given = (ids[:, place + 1 : place + 2], *before, *cache)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", ["gpt2", "text_decoder", "retnet", "pixel_gpt", "gpt"])
def test_steps_of_a_program_are_the_model(name):
    model = small(name)
    ids = torch.randint(0, 40, (2, 6))
    with torch.no_grad():
        assert torch.allclose(steps(language_program(model), ids), model(ids), atol=1e-4)


def test_steps_of_a_translation_read_the_source_once():
    model = small("transformer")
    ids, source, lengths = torch.randint(0, 40, (2, 4)), torch.randint(0, 40, (2, 5)), torch.tensor([5, 3])
    spec, layout = translation_program(model), TokenSequence(5, lengths=lengths)
    spec_encode = spec.encode
    given = spec_encode(source, ids[:, :1], layout)
    found = []
    with torch.no_grad():
        for place in range(4):
            logits, *cache = spec.module(*given)
            found.append(logits)
            given = (ids[:, place + 1 : place + 2], source[:, :0], lengths, *cache)
        assert torch.allclose(torch.cat(found, dim=1), model(source, ids, layout), atol=1e-4)


def test_a_model_that_sorts_its_tokens_again_has_no_step():
    with pytest.raises(VitrailError, match="sorts all tokens again"):
        export_program(_of_task(small("reformer"), "language"))


def test_a_step_has_no_fixed_sizes():
    with pytest.raises(VitrailError, match="grows with each token"):
        export_program(_of_task(small("gpt2"), "language"), "fixed")


def _of_task(model, task):
    model.task = task
    return model


@pytest.mark.slow
def test_generate_gives_the_tokens_of_the_folder(runtime, tmp_path, capsys):
    model = with_words("text_decoder", "language", depth=1)
    save_model(model, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "text.onnx")]) == 0
    assert "any length, any past" in capsys.readouterr().out
    found = []
    for source in ("model", "text.onnx"):
        words = [str(tmp_path / source), "a dog", "--tokens", "12", "--temperature", "0.8", "--seed", "3"]
        assert main(["generate", *words]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] and len(found[0]) > 10
    opened = open_exported(tmp_path / "text.onnx")
    assert generate(opened, [[3, 5, 6], [4]], 9) == generate(model, [[3, 5, 6], [4]], 9)
    with pytest.raises(VitrailError, match="needs the weights"):
        decoder_of(opened, "int8", 8)


@pytest.mark.slow
def test_translate_gives_the_lines_of_the_folder(runtime, tmp_path, capsys):
    model = with_words("transformer", "translate", depth=1)
    model.metadata = {"max_length": 32, "languages": ("en", "de")}
    save_model(model, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "text.onnx")]) == 0
    capsys.readouterr()
    found = []
    for source in ("model", "text.onnx"):
        assert main(["translate", str(tmp_path / source), "a dog", "", "you see the snow", "--scores"]) == 0
        found.append([line.split("\t") for line in capsys.readouterr().out.splitlines()])
    assert len(found[0]) == 3
    for one, other in zip(*found, strict=True):
        assert one[1:] == other[1:] and abs(float(one[0]) - float(other[0])) < 1e-3
    words = [str(tmp_path / "text.onnx"), "a dog", "--alignment", str(tmp_path / "page.html")]
    assert main(["translate", *words]) == 2
    assert "its layers are needed for the alignment" in capsys.readouterr().err
    (tmp_path / "pairs.tsv").write_text("a dog\tin the snow\nyou see the snow\ta dog\n")
    figures = []
    for source in ("model", "text.onnx"):
        assert main(["evaluate", str(tmp_path / source), str(tmp_path / "pairs.tsv"), "--split", "all", "--json"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], abs=1e-4)
    texts = [[each["translation"] for each in found["examples"]] for found in figures]
    assert texts[0] == texts[1] and len(texts[0]) == 2


def trained_translator():
    """A small model that has learned twenty sentences of other lengths, and the sentences."""
    words = {
        "a": "ein", "dog": "hund", "cat": "kater", "runs": "rennt", "sleeps": "schläft", "in": "im", "snow": "schnee",
        "grass": "gras", "and": "und", "you": "du", "see": "siehst", "it": "ihn",
    }  # fmt: skip
    starts = [f"a {who} {does}" for who in ("dog", "cat") for does in ("runs", "sleeps")]
    ends = ["", "in snow", "in grass", "and you see it", "in snow and you see a cat in grass"]
    sources = [f"{start} {end}".strip() for start in starts for end in ends]
    targets = [" ".join(words[each] for each in one.split()) for one in sources]
    vocabulary = learn_vocabulary([*sources, *targets], 300)
    torch.manual_seed(0)
    model = small("transformer", vocab_size=len(vocabulary), depth=1, dropout=0.0).train()
    model.task, model.inputs = "translate", vocabulary
    model.metadata = {"max_length": 64, "languages": ("en", "de")}
    ids = encode_pairs(vocabulary, SentencePairs("small", [str(i) for i in range(20)], sources, targets))
    (source, sizes), (target, lengths) = (pad_ids([pair[side] for pair in ids]) for side in (0, 1))
    batch = PairBatch(source, sizes, target, lengths, torch.arange(20))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        (pair_loss(model, batch, 0.0)[0] / batch.weight).backward()
        optimizer.step()
    return model.eval(), sources, targets


@pytest.mark.slow
def test_translate_gives_the_folder_s_lines_for_twenty_sentences(runtime, tmp_path, capsys):
    """Beam search in batches of several lengths, and greedy search line by line."""
    model, sources, targets = trained_translator()
    save_model(model, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "text.onnx")]) == 0
    (tmp_path / "news").write_text("\n".join(sources) + "\n")
    capsys.readouterr()
    for flags in (["--batch", "7"], ["--beam", "1", "--batch", "1"]):
        found = []
        for name in ("model", "text.onnx"):
            assert main(["translate", str(tmp_path / name), "--file", str(tmp_path / "news"), *flags]) == 0
            found.append(capsys.readouterr().out.splitlines())
        assert found[0] == found[1] and len(found[0]) == 20
        assert sum(one == want for one, want in zip(found[0], targets, strict=True)) >= 15  # it says something


@pytest.mark.slow
def test_completion_gives_the_pixels_of_the_folder(runtime, tmp_path):
    model = small("pixel_gpt", depth=1)
    model.task = "complete"
    model.colors.copy_(torch.rand_like(model.colors))
    save_model(model, tmp_path / "model")
    export(model, "onnx", tmp_path / "pixels.onnx")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)).save(tmp_path / "a.png")
    drawn = []
    for source in ("model", "pixels.onnx"):
        words = [tmp_path / source, tmp_path / "a.png", "--samples", "2", "--out", tmp_path / f"{source}.png"]
        assert main(["generate", *map(str, words)]) == 0
        drawn.append((tmp_path / f"{source}.png").read_bytes())
    assert drawn[0] == drawn[1]


def detector(name="mask_rcnn"):
    torch.manual_seed(0)
    model = create_model(name, **DETECTOR).eval()
    with torch.no_grad():  # decisive scores, and boxes of many sizes
        predictor = model.head.roi_heads.box_predictor
        predictor.cls_score.weight.normal_(std=0.5)
        predictor.bbox_pred.weight.normal_(std=0.1)
        model.head.rpn.head.cls_logits.weight.normal_(std=0.3)
        model.head.rpn.head.bbox_pred.weight.normal_(std=0.1)
    return model


def test_a_detector_of_fixed_sizes_is_the_detector():
    model = detector()
    images, sizes = torch.randn(2, 3, 64, 96), torch.tensor([[64, 96], [50, 70]])
    with torch.no_grad():
        got, want = FixedSizeDetector(model)(images, sizes), model(images, [(64, 96), (50, 70)])
    for ours, theirs in zip(decode(got), want, strict=True):
        assert len(ours.scores) == len(theirs.scores) > 5
        order = [each.boxes[:, 0].argsort() for each in (ours, theirs)]
        for name in ("boxes", "scores", "labels", "masks"):
            one, other = (getattr(each, name)[at].float() for each, at in zip((ours, theirs), order, strict=True))
            assert torch.allclose(one, other, atol=1e-3), name
    assert agree(got, got) == (0.0, True)
    moved = (got[0] + 5, *got[1:])
    assert not agree(moved, got)[1]


@pytest.mark.parametrize("size", [(65, 40), (10, 10), (3, 64)])
def test_a_detector_of_fixed_sizes_agrees_on_small_images(size):
    model = detector()
    model.head.roi_heads.score_thresh = 0.0
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        got, want = FixedSizeDetector(model)(images, torch.tensor([size, size])), model(images)
    for ours, theirs in zip(decode(got), want, strict=True):
        assert len(ours.scores) == len(theirs.scores) > 0
        assert torch.allclose(ours.scores.sort().values, theirs.scores.sort().values, atol=1e-3)


@pytest.mark.slow
def test_a_file_of_a_detector_finds_the_boxes_of_the_folder(runtime, tmp_path, capsys):
    model = detector()
    save_model(model, tmp_path / "model", labels=("a", "b", "c"))
    done = export(model, "onnx", tmp_path / "boxes")
    assert done.sizes == {"height": "any", "width": "any"}, str(done)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    found = []
    for source in (tmp_path / "model", done.files[0]):
        assert main(["predict", str(source), str(tmp_path / "a.png"), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[0]))
    one, other = found
    assert one.keys() == other.keys()
    assert len(one["objects"]) == len(other["objects"]) > 3


def test_an_lstm_of_padded_texts_is_exported(runtime, tmp_path):
    model = _of_task(small("bilstm"), "sentiment")
    done = export(model, "onnx", tmp_path / "lstm.onnx")
    assert done.sizes == {"length": "any"}, str(done)
    opened = open_exported(done.files[0])
    ids, layout = torch.randint(0, 50, (3, 9)), TokenSequence(9, lengths=torch.tensor([9, 2, 5]))
    with torch.no_grad():
        assert torch.allclose(opened(ids, layout), model(ids, layout), atol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
def test_padded_lstm_is_the_packed_one(directions):
    lstm, layout = LSTM(3, hidden=4, depth=2, directions=directions), TokenSequence(6, lengths=torch.tensor([6, 1, 4]))
    x = torch.randn(3, 6, 3)
    assert torch.allclose(PaddedLSTM(lstm)(x, layout), lstm(x, layout), atol=1e-6)
