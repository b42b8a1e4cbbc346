"""Gates with an L0 penalty: their distribution against draws, the share that they reach, and which heads they keep."""

import pytest
import torch
from small_models import small

from vitrail.compress.calibration_data import CalibrationBatch
from vitrail.compress.compress import compress
from vitrail.compress.l0_gates import hard_concrete, l0_scores, open_probability
from vitrail.compress.settings import CompressSettings
from vitrail.edits.heads import prunable_heads
from vitrail.errors import VitrailError

ODDS = torch.tensor([-4.0, -1.0, 0.0, 1.5, 4.0])


def test_the_probability_is_the_share_of_draws_above_zero():
    gates = hard_concrete(ODDS, torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose((gates > 0).float().mean(0), open_probability(ODDS), atol=0.012)
    assert gates.min() == 0 and gates.max() == 1


def test_gates_equal_a_loop_over_the_formula():
    uniform = torch.tensor([0.1, 0.3, 0.5, 0.8, 0.99])
    for odds, u, got in zip(ODDS.tolist(), uniform.tolist(), hard_concrete(ODDS, uniform).tolist(), strict=True):
        a = torch.tensor(odds).exp().item()
        s = (u * a) ** 1.5 / ((u * a) ** 1.5 + (1 - u) ** 1.5)
        assert got == pytest.approx(min(1.0, max(0.0, 1.2 * s - 0.1)), abs=1e-5)


@pytest.fixture(scope="module")
def model():
    """A ViT whose head 1 in block 0 and head 2 in block 1 alone add something."""
    model = small("vit")
    with torch.no_grad():
        for block, head in zip(model.backbone.stages[0].blocks, (1, 2), strict=True):
            columns = block.token_mixer.proj.weight.unflatten(1, (3, 8))
            for other in {0, 1, 2} - {head}:
                columns[:, other] = 0
            columns[:, head] *= 3
    return model


def probes(targets=None):
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = None if targets is None else lambda logits: (logits - targets).square().mean()
    return [CalibrationBatch(lambda model: model(x), loss)]


@pytest.mark.parametrize("labelled", [True, False])
def test_heads_that_add_something_stay(model, labelled):
    with torch.no_grad():
        targets = probes()[0].run(model)
    data = probes(targets if labelled else None)
    small_model = compress(model, CompressSettings(heads=2 / 3, score="l0", gate_steps=60), data)
    assert [edit.keep for edit in small_model.edits] == [
        {f"backbone.stages.0.blocks.{i}.token_mixer": (head,) for i, head in enumerate((1, 2))}
    ]
    assert all(value.grad is None for value in small_model.parameters())


def test_the_share_of_open_gates_is_the_share_to_keep(model):
    inputs = {f"{name}.proj": count for name, count in prunable_heads(model).items()}
    odds = l0_scores(model, inputs, probes(), share=1 / 3, steps=120, seed=0)
    assert float(torch.cat([open_probability(one) for one in odds.values()]).mean()) == pytest.approx(1 / 3, abs=0.1)


def test_l0_needs_data_and_no_width(model):
    with pytest.raises(VitrailError, match="Give --data"):
        compress(model, CompressSettings(heads=0.5, score="l0"))
    with pytest.raises(VitrailError, match="in a call of its own"):
        CompressSettings(width=0.5, heads=0.5, score="l0")
