"""Layers of a teacher imitated: zero for equal models, loops, other grids and widths, runs that go on bit for bit."""

import shutil
from dataclasses import replace
from math import log

import pytest
import torch
from safetensors.torch import load_file
from small_models import small
from small_run import TINY

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.tasks.classify.distillation import Teacher
from vitrail.tasks.classify.imitation import Imitation, attention_loss, feature_loss, relation_loss, resample
from vitrail.tasks.classify.layer_watch import AttentionOperands
from vitrail.tasks.classify.options import TrainOptions
from vitrail.training.config import TrainConfig
from vitrail.training.train import train
from vitrail.weights.folder import load_model, save_model

ALL = {"distill_features": 1.0, "distill_attention": 1.0, "distill_relations": 1.0}


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def pair(student, teacher, size=64, **weights):
    """Watch both models; return the imitation and its loss on some images."""
    options = TrainOptions(teacher="t", **weights)
    ours, theirs = replace(student.preprocess, size=64), replace(teacher.preprocess, size=size)
    imitation = Imitation(options, student, teacher, images(), Teacher(teacher, theirs, ours))
    student.train()(images())
    return imitation, imitation.loss(imitation.outputs(), images())


@pytest.mark.parametrize("name", ["vit", "deit distilled", "dinov2 registers"])
@pytest.mark.parametrize("weight", ALL)
def test_equal_models_have_no_loss(name, weight):
    student, teacher = small(name, drop_path=0.0), small(name, drop_path=0.0)
    teacher.load_state_dict(student.state_dict())
    _, loss = pair(student, teacher, **{weight: 1.0})
    assert loss.abs() < 1e-6


@pytest.mark.parametrize("weight", ["distill_features", "distill_relations"])
def test_equal_window_models_have_no_loss(weight):
    student, teacher = (small("swin official", drop_path=0.0) for _ in range(2))
    teacher.load_state_dict(student.state_dict())
    assert pair(student, teacher, **{weight: 1.0})[1].abs() < 1e-6


@pytest.mark.parametrize("name", ["swin official", "swin masked", "pvt", "deit"])
@pytest.mark.parametrize("weight", ALL)
def test_other_architectures_and_grids_learn(name, weight):
    student = small(name)
    teacher = small("vit", dim=36, depth=3, image_size=96)
    if name == "pvt" and weight != "distill_features":
        student = small("vit", patch_size=8)  # the last attention of PVT reads a class token of another stage
    imitation, loss = pair(student, teacher, size=96, **{weight: 1.0})
    loss.backward()
    assert loss.isfinite() and loss > 0
    learned = [value.grad for value in imitation.maps.parameters()]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learned)
    assert len(learned) == 2 * (weight == "distill_features")
    reached = [value for value in student.parameters() if value.grad is not None and value.grad.abs().sum() > 0]
    assert len(reached) > 4 and all(value.grad is None for value in teacher.parameters())


def test_windows_compare_the_keys_of_their_window():
    """A window of four cells against a map over all nine tokens, pair by pair."""
    grid, slots = Grid(2, 4, 1), torch.tensor([[1, 2, 5, 6], [3, 4, 7, 8]])
    own, wanted = torch.rand(2, 2, 4, 4, 4).softmax(-1), torch.randn(2, 1, 2, 9, 9).softmax(-1)
    empty = torch.zeros(2, 2, 4, 4, 3)
    got = attention_loss(own, AttentionOperands(empty, empty, empty, None, slots, grid), wanted, Grid(2, 4, 1))
    total = 0.0
    for b in range(2):
        for g in range(2):
            for a in range(2):
                for i in range(4):
                    s = [float(own[b, g, 2 * a : 2 * a + 2, i, j].mean()) for j in range(4)]
                    t = [float(wanted[b, 0, a, slots[g, i], slots[g, j]]) for j in range(4)]
                    s, t = [x / sum(s) for x in s], [x / sum(t) for x in t]
                    total += sum(x * log(x / y) for x, y in zip(t, s, strict=True)) / (2 * 2 * 2 * 4)
    assert got == pytest.approx(total, rel=1e-4)


def test_relations_equal_a_loop():
    grid, slots = Grid(1, 3, 1), torch.tensor([[0, 1, 2, 3]])
    own, theirs = torch.randn(1, 1, 2, 4, 3), torch.randn(1, 1, 4, 4, 5)
    student = AttentionOperands(own, own, own, None, slots, grid)
    teacher = AttentionOperands(theirs, theirs, theirs, None, slots, grid)
    total = 0.0
    for a in range(2):
        s, t = own[0, 0, a, 1:], torch.cat([theirs[0, 0, 2 * a], theirs[0, 0, 2 * a + 1]], -1)[1:]
        p, q = (torch.softmax(v @ v.T / v.shape[-1] ** 0.5, -1) for v in (t, s))
        total += float((p * (p / q).log()).sum()) / (2 * 3)
    assert float(relation_loss(own, student, teacher)) == pytest.approx(total, rel=1e-4)


def test_features_are_compared_on_the_grid_of_the_student():
    tokens = torch.randn(2, 17, 6)
    wanted = resample(torch.nn.functional.layer_norm(tokens[:, 1:], (6,)).unflatten(1, (4, 4)), 2, 2)
    assert feature_loss(wanted, tokens, Grid(4, 4, 1)) < 1e-10


def test_incomparable_models_are_refused():
    with pytest.raises(VitrailError, match="need a --teacher"):
        TrainOptions(distill_features=1.0).check()
    with pytest.raises(VitrailError, match="distill-relations"):
        pair(small("vit"), small("swin official"), distill_attention=1.0)
    with pytest.raises(VitrailError, match="no self-attention"):
        pair(small("poolformer"), small("vit"), distill_relations=1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that imitates a teacher of other classes, width and grid."""
    place = tmp_path_factory.mktemp("imitation")
    sizes = dict(dim=24, depth=2, num_heads=2, patch_size=2, image_size=8, num_classes=7)
    save_model(small("vit", **sizes), place / "teacher")
    config = replace(
        TINY, teacher=str(place / "teacher"), distill_alpha=0.0, **ALL, batch=240, save_steps=5, out=str(place / "run")
    )
    train(config)
    return place / "run"


def test_a_resumed_run_has_the_same_maps_bit_for_bit(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    states = sorted((copy / "state").glob("step-*"))
    shutil.rmtree(states[-1])
    train(replace(TrainConfig(), resume=str(copy)))
    whole, again = (_tensors(sorted((folder / "state").glob("step-*"))[-1]) for folder in (run, copy))
    assert whole.keys() == again.keys() and all(torch.equal(value, again[key]) for key, value in whole.items())
    names = [key for key in whole if "companions" in key]
    assert any(key.startswith("companions.") for key in names) and any("exp_avg" in key for key in names)
    first = _tensors(sorted((run / "state").glob("step-*"))[0])
    assert any(not torch.equal(first[key], whole[key]) for key in names if "exp_avg" not in key)


def _tensors(state):
    found = {}
    for path in sorted(state.glob("*.safetensors")):
        found |= load_file(path)
    return found


def test_the_model_that_is_written_has_no_maps(run):
    model = load_model(run / "weights" / "last")
    assert not any("companions" in name or "maps" in name for name in model.state_dict())
