"""Planner: memory of training against tensors counted in an update, receptive fields, formulas of Swin."""

import json

import pytest
import torch
from small_models import small

from vitrail.cli import main
from vitrail.inference.cost_plot import largest_departure
from vitrail.inference.receptive_field import receptive_fields
from vitrail.inference.training_memory import (
    LiveTensors,
    TrainingSetup,
    make_probe_optimizer,
    probe_inputs,
    training_memory,
    update,
)
from vitrail.inference.window_cost import attention_costs, msa, window_msa
from vitrail.models import create_model
from vitrail.parts.recomputation import recompute_blocks

SMALL_VIT = ("vit_tiny_patch16_224", {"depth": 2, "dim": 24, "num_heads": 2, "image_size": 32})


def vit():
    torch.manual_seed(0)
    return create_model(SMALL_VIT[0], **SMALL_VIT[1])


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_extrapolated_peak_is_that_of_a_real_update(name):
    model = small(name).train()
    predicted = training_memory(model, TrainingSetup(7, fused=False), size=32)
    inputs, optimizer = probe_inputs(model, 7, 32), make_probe_optimizer("adamw", model)
    live = LiveTensors([*model.parameters(), *model.buffers(), *inputs])
    with live:
        update(model, inputs, optimizer, "fp32")
        update(model, inputs, optimizer, "fp32")
    assert predicted.total == pytest.approx(max(live.history), rel=0.01)


def test_checkpointing_and_bf16_keep_less():
    model = create_model(SMALL_VIT[0], **{**SMALL_VIT[1], "depth": 6})
    plain, less, half = (
        training_memory(model, TrainingSetup(16, precision, "sgd", checkpointing)).activations
        for precision, checkpointing in (("fp32", False), ("fp32", True), ("bf16", False))
    )
    assert less < 0.7 * plain
    assert half < 0.8 * plain


def test_recomputed_gradients_are_those_of_stored_activations():
    images, gradients = torch.randn(2, 3, 32, 32), []
    for recompute in (False, True):
        model = vit().train()
        if recompute:
            assert recompute_blocks(model) == 2
        model(images).square().sum().backward()
        gradients.append([each.grad for each in model.parameters()])
        with torch.no_grad():
            assert model.eval()(images).shape == (2, 1000)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_counts_equal_the_formulas_of_the_paper():
    assert msa(56, 56, 96) == 4 * 3136 * 96**2 + 2 * 3136**2 * 96
    assert window_msa(56, 56, 96, 7) == 4 * 3136 * 96**2 + 2 * 49 * 3136 * 96
    costs = attention_costs(16, 2, (7, 10, 14), (7, 12))
    assert largest_departure(costs) == 0.0
    assert all(each.seconds is None for each in costs)


def test_receptive_fields():
    assert [field[1:3] for field in receptive_fields(vit())] == [(32, 32), (32, 32)]
    nat = create_model("nat_mini", dim=8, depths=(2,), num_heads=(1,), kernel_size=3)
    # two 3 x 3 convolutions of stride 2 see 7 pixels; each block of 3 x 3 cells of 4 pixels adds 8
    assert [field.rows for field in receptive_fields(nat, 64)] == [15, 23]


def test_verb(capsys):
    words = ["cost", SMALL_VIT[0], "--set", "depth=1", "dim=24", "image_size=32"]
    assert main([*words, "--training", "--receptive-field", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["training"]) == 24 and printed["receptive_fields"][0]["rows"] == 32
    assert main(["cost", "lstm_sst", "--receptive-field"]) == 2
    assert "no model of images" in capsys.readouterr().err


@pytest.mark.slow
def test_plot(tmp_path):
    plot = tmp_path / "sub" / "cost.png"
    assert main(["cost", SMALL_VIT[0], "--set", "depth=1", "dim=24", "image_size=32", "--plot", str(plot)]) == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
