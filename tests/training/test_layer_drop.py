"""LayerDrop: an update computes a model of fewer blocks, and evaluation computes all of them."""

from dataclasses import replace

import pytest
import torch
from small_models import relative, small
from small_run import TINY

from vitrail.edits.blocks import DropBlocks
from vitrail.edits.edit import apply_edits
from vitrail.errors import VitrailError
from vitrail.training.layer_drop import drop_layers
from vitrail.training.train import train
from vitrail.weights.folder import load_model


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def ran(model, x):
    """Return the outputs, and the numbers of the blocks that ran."""
    blocks, numbers = model.backbone.stages[0].blocks, []
    hooks = [block.norm1.register_forward_hook(lambda *given, i=i: numbers.append(i)) for i, block in enumerate(blocks)]
    y = model(x)
    for hook in hooks:
        hook.remove()
    return y, numbers


def test_a_forward_pass_in_training_is_that_of_the_blocks_that_ran():
    model = drop_layers(small("vit", depth=4), 0.5)
    plain = small("vit", depth=4)
    plain.load_state_dict(model.state_dict())
    seen = set()
    with torch.no_grad():
        for seed in range(12):
            torch.manual_seed(seed)
            y, numbers = ran(model.train(), images())
            seen.add(tuple(numbers))
            if numbers and len(seen) < 6:
                shallow = small("vit", depth=4)
                shallow.load_state_dict(plain.state_dict())
                apply_edits(shallow, DropBlocks({"backbone.stages.0": numbers}))
                assert torch.equal(shallow.train()(images()), y)
        assert len(seen) > 4
        whole, numbers = ran(model.eval(), images())
        assert numbers == [0, 1, 2, 3] and torch.equal(whole, plain.eval()(images()))


def test_blocks_are_skipped_at_their_rate():
    model, count = drop_layers(small("vit", depth=4), 0.25).train(), 0
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(60):
            count += len(ran(model, images()[:1])[1])
    assert 0.65 < count / 240 < 0.85


def test_a_run_is_the_same_again_and_its_weights_are_plain(tmp_path):
    runs = []
    for name in "ab":
        train(replace(TINY, layer_drop=0.4, epochs=1, out=str(tmp_path / name)))
        runs.append(load_model(tmp_path / name / "weights" / "last"))
    assert runs[0].edits == ()
    assert all(torch.equal(value, runs[1].state_dict()[key]) for key, value in runs[0].state_dict().items())
    train(replace(TINY, epochs=1, out=str(tmp_path / "c")))
    other = load_model(tmp_path / "c" / "weights" / "last").state_dict()
    assert any(relative(other[key], value) > 1e-3 for key, value in runs[0].state_dict().items() if value.norm())


def test_unsupported_models_are_refused(tmp_path):
    with pytest.raises(VitrailError, match="this model has none"):
        drop_layers(small("resnet"), 0.2)
    with pytest.raises(VitrailError, match="compile cannot follow"):
        train(replace(TINY, layer_drop=0.2, compile=True, out=str(tmp_path / "run")))
    with pytest.raises(VitrailError, match="layer_drop is 1"):
        replace(TINY, layer_drop=1.0)
