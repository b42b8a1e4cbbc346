"""The average is the formula's, and looking at it does not disturb the weights."""

from typing import Any

import torch
from torch import nn

from vitrail.training.ema import Ema, LastAverage


def test_average_equals_the_formula_written_out() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ema, want = Ema(model, decay=0.9), model.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        ema.update(step)
        d = min(0.9, (1 + step) / (10 + step))
        want = d * want + (1 - d) * model.weight.detach()
    with ema.applied():
        torch.testing.assert_close(model.weight, want, rtol=1e-5, atol=1e-6)


def test_weights_are_restored_bit_for_bit_even_after_an_error() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = Ema(model, decay=0.5)
    with torch.no_grad():
        model[0].weight.mul_(3.7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        with ema.applied():
            assert not torch.equal(model[0].weight, before["0.weight"])
            raise KeyError
    except KeyError:
        pass
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_floating_buffers_are_averaged_and_counters_are_not() -> None:
    model: Any = nn.BatchNorm1d(2)
    ema = Ema(model, decay=0.5)
    model(torch.randn(8, 2) + 5)
    ema.update(100)
    with ema.applied():
        assert 0 < model.running_mean.mean() < 0.5  # half of a tenth of 5
        assert model.num_batches_tracked == 1


def test_average_of_the_last_epochs_survives_a_state() -> None:
    model = nn.Linear(2, 1)
    average = LastAverage(model, count=3, every=2)
    for step in range(9):  # epochs end at steps 1, 3, 5 and 7
        nn.init.constant_(model.weight, float(step))
        average.update(step)
    with average.applied():
        assert model.weight[0].tolist() == [5.0, 5.0]
    assert model.weight[0].tolist() == [8.0, 8.0]
    tables = average.tables(lambda: dict(model.state_dict()))
    other = nn.Linear(2, 1)
    again = LastAverage(other, count=3, every=2)
    again.load(9, lambda name: other.load_state_dict(tables[name]) and None)
    with average.applied(), again.applied():
        assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
