"""Exported encoders of texts: every head, read back by the verbs; other text models are written or refused by name."""

import json

import pytest
import torch
from small_texts import SMALL, small

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.export.export import export
from vitrail.export.program import export_program
from vitrail.export.runtime import open_exported
from vitrail.layouts import TokenSequence
from vitrail.models import list_models, task_of
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.lsh_attention import LSHAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention
from vitrail.parts.token_mixers.star_attention import StarTransformer
from vitrail.tasks import KINDS, TASKS, task_name
from vitrail.text.learning import learn_framed
from vitrail.weights.folder import save_model

pytestmark = pytest.mark.filterwarnings("ignore")
MIXERS = {
    "linformer": lambda: LinformerAttention(32, 4, 64, rank=8),
    "lsh": lambda: LSHAttention(32, 4, buckets=4, rounds=2, chunk=8),
    "performer": lambda: PerformerAttention(32, 4, features=16),
    "sparse": lambda: FixedSparseAttention(32, 4, block=8, summary=2),
    "star": lambda: StarTransformer(32, 4),
}


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def test_every_kind_of_the_catalogue_has_a_task():
    kinds = {task_of(name) for name in list_models()}
    assert kinds - TASKS.keys() <= KINDS.keys() and set(KINDS.values()) <= TASKS.keys()
    assert task_name("language") == "language"


@pytest.mark.parametrize("name", MIXERS)
def test_programs_of_texts_take_any_batch_and_length(name):
    """`export_program` compares two lengths off the trace, in a batch of one."""
    model = small("text_encoder", depth=1)
    model.backbone.stages[0].blocks[0].token_mixer = MIXERS[name]()
    assert export_program(model.eval(), "any").sizes == {"length": "any"}


def filler(name="convbert", **overrides):
    """A small model that fills masked words, with a vocabulary of its own, and the file of a text for it."""
    vocabulary = learn_framed(["a dog ran in the snow"] * 4, 300, ("[CLS]", "[SEP]", "[MASK]"))
    model = small(name, vocab_size=len(vocabulary), **overrides)
    model.inputs = vocabulary
    return model


def test_a_file_of_a_convbert_fills_the_words_of_the_folder(runtime, tmp_path, capsys):
    """Its kind, `masked`, has no task of its own name: the one of pretraining runs the folder and the file."""
    model = filler()
    assert model.task == "masked"
    save_model(model, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "words.onnx")]) == 0
    assert "any batch, any length" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("a [MASK] ran\nthe [MASK] in the [MASK] snow\n")
    found = []
    for name in ("model", "words.onnx"):
        assert main(["predict", str(tmp_path / name), str(tmp_path / "lines.txt"), "--top", "3", "--json"]) == 0
        found.append([json.loads(line)["masks"] for line in capsys.readouterr().out.splitlines()])
    assert [len(masks) for masks in found[0]] == [len(masks) for masks in found[1]] == [1, 2]
    for one, other in zip(*([mask for line in each for mask in line] for each in found), strict=True):
        assert [word for word, _ in one] == [word for word, _ in other]
        assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-4)
    (tmp_path / "text.txt").write_text("a dog ran in the snow\n" * 8)
    figures = []
    for name in ("model", "words.onnx"):
        words = [str(tmp_path / name), str(tmp_path / "text.txt"), "--split", "all", "--json"]
        assert main(["evaluate", *words]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0]["segments"] == figures[1]["segments"] > 0
    assert figures[0]["masked_nats"] == pytest.approx(figures[1]["masked_nats"], abs=1e-4)


def test_a_file_of_vectors_is_written_and_has_no_words_to_predict(runtime, tmp_path, capsys):
    model = filler("bert vector", depth=1)
    assert model.task == "vector"
    save_model(model, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "vectors.onnx")]) == 0
    opened, ids = open_exported(tmp_path / "vectors.onnx"), torch.randint(0, 50, (3, 9))
    layout = TokenSequence(9, lengths=torch.tensor([9, 2, 5]))
    with torch.no_grad():
        assert torch.allclose(opened(ids, layout), model(ids, layout), atol=1e-5)
    for name in ("model", "vectors.onnx"):
        assert main(["predict", str(tmp_path / name), "--text", "a [MASK]"]) == 2
        assert "gives a vector of each sentence, and no words" in capsys.readouterr().err
    (tmp_path / "lines.txt").write_text("a dog ran\n")
    words = [str(tmp_path / name) for name in ("vectors.onnx", "lines.txt", "vectors.npz")]
    assert main(["embed", *words[:2], "--out", words[2]]) == 2
    assert "holds the outputs of its task alone" in capsys.readouterr().err


def test_a_head_of_classes_is_not_exported_as_one_of_words():
    with pytest.raises(VitrailError, match=r"set model\.task, such as sentiment"):
        export_program(small("bert classes", depth=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_model_of_text_is_written_or_refused_by_name(runtime, tmp_path, name):
    model = small(name)
    if name == "bert classes":
        model.task = "sentiment"
    if name == "reformer":
        with pytest.raises(VitrailError, match="sorts all tokens again for each new one"):
            export(model, "onnx", tmp_path / "model.onnx")
        return
    done = export(model, "onnx", tmp_path / "model.onnx", sizes="any")
    assert set(done.sizes.values()) == {"any"} and max(each.error for each in done.compared) < 1e-5
