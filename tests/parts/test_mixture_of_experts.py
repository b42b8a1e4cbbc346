"""Routing and experts against a loop over tokens, and the identities of a sparse mixture."""

import math

import pytest
import torch
from torch.nn.functional import gelu

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.mixture_of_experts import MixtureOfExperts
from vitrail.parts.routing import BatchPriority, TokenOrder, TopExpertsRouter


def loop(m: MixtureOfExperts, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Route token by token with counters; return the output and the number of dropped assignments."""
    out, dropped = [], 0
    places = min(math.ceil(m.router.capacity * m.router.selected * x.shape[1] / m.router.num_experts), x.shape[1])
    for image in x:
        gates = (image @ m.router.gate.weight.T).softmax(-1)
        order = list(range(len(image)))
        if isinstance(m.router.priority, BatchPriority):
            order.sort(key=lambda n: -gates[n].max().item())
        free = [places] * m.router.num_experts
        rows = [torch.zeros_like(image[0]) for _ in image]
        for choice in range(m.router.selected):
            for n in order:
                e = gates[n].argsort(descending=True)[choice].item()
                if free[e] == 0:
                    dropped += 1
                    continue
                free[e] -= 1
                inner = gelu(m.weight1[e] @ image[n] + m.bias1[e])
                rows[n] = rows[n] + gates[n, e] * (m.weight2[e] @ inner + m.bias2[e])
        out.append(torch.stack(rows))
    return torch.stack(out), dropped


@pytest.mark.parametrize("priority", [TokenOrder(), BatchPriority()], ids=["order", "batch"])
@pytest.mark.parametrize(("tokens", "capacity"), [(1, 1.0), (7, 0.5), (12, 1.05), (11, 4.0)])
def test_against_a_loop_over_tokens(priority, tokens, capacity):
    router = TopExpertsRouter(6, num_experts=3, selected=2, capacity=capacity, priority=priority)
    m = MixtureOfExperts(router, 6, hidden=5).double().eval()
    torch.nn.init.normal_(m.bias1)
    torch.nn.init.normal_(m.bias2)
    x = torch.randn(2, tokens, 6, dtype=torch.double, requires_grad=True)
    router.gate.double()
    inputs = [x, *m.parameters()]
    got, (want, dropped) = m(x, Grid(1, tokens)), loop(m, x)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)  # gates are fp32
    assert dropped > 0 if capacity == 0.5 else dropped == 0 or capacity < 2
    weight = torch.randn_like(got)
    ours = torch.autograd.grad((got * weight).sum(), inputs)
    theirs = torch.autograd.grad((want * weight).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_one_expert_with_full_capacity_is_its_mlp():
    m, mlp = MixtureOfExperts(TopExpertsRouter(6, 1, selected=1, capacity=1.0), 6, hidden=5).eval(), MLP(6, 5)
    state = {"fc1.weight": m.weight1[0], "fc1.bias": m.bias1[0], "fc2.weight": m.weight2[0], "fc2.bias": m.bias2[0]}
    mlp.load_state_dict(state)
    x, grid = torch.randn(2, 9, 6), Grid(3, 3)
    torch.testing.assert_close(m(x, grid), mlp(x, grid))


def test_batch_priority_drops_the_least_important_tokens():
    router = TopExpertsRouter(2, num_experts=2, selected=1, capacity=0.5, priority=BatchPriority()).eval()
    gates = torch.tensor([[[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.8, 0.2]]])
    assert router.places(4) == 1
    assert router.assign(gates).dispatch[0, :, 0, 0].tolist() == [0, 1, 0, 0]
    router.priority = TokenOrder()
    assert router.assign(gates).dispatch[0, :, 0, 0].tolist() == [1, 0, 0, 0]


def test_balanced_gates_have_no_importance_loss_and_one_sided_ones_do():
    router = TopExpertsRouter(4, num_experts=4, selected=1, noise=0.0)
    m = MixtureOfExperts(router, 4, hidden=3, loss_weight=1.0)
    x = torch.eye(4).expand(2, 4, 4)
    with torch.no_grad():
        router.gate.weight.copy_(torch.eye(4) * 5)
    m(x, Grid(2, 2))
    assert m.auxiliary_loss() < 1e-10 and m.auxiliary_loss() == 0  # read once
    m(x[:, :1].expand(2, 4, 4), Grid(2, 2))
    gates = torch.tensor([math.exp(5), 1, 1, 1])
    want = (gates.std(correction=0) / gates.mean()) ** 2
    torch.testing.assert_close(m.auxiliary_loss(), want)


def test_load_loss_is_the_variation_of_probable_loads():
    router = TopExpertsRouter(4, num_experts=3, selected=2, noise=1.0)
    m = MixtureOfExperts(router, 4, hidden=3, loss_weight=1.0)
    x = torch.randn(1, 5, 4)
    torch.manual_seed(3)
    m(x, Grid(1, 5))
    torch.manual_seed(3)
    logits = x @ router.gate.weight.T
    noisy = logits + torch.randn_like(logits) / 3
    loads = []
    for e in range(3):
        chances = []
        for n in range(5):
            threshold = sorted(noisy[0, n].tolist())[-2]
            chances.append(0.5 * (1 + math.erf((logits[0, n, e].item() - threshold) * 3 / 2**0.5)))
        loads.append(sum(chances) / 5)
    loads = torch.tensor(loads)
    importance = logits.softmax(-1).sum(1)
    want = sum((v.std(correction=0) / v.mean()) ** 2 for v in (loads, importance[0]))
    torch.testing.assert_close(m.auxiliary_loss(), want)


def test_losses_reach_the_router_in_training_alone():
    model = create_model("vmoe_s32_last2", dim=16, depth=2, num_heads=2, expert_blocks=(1,), image_size=64)
    layer = model.backbone.stages[0].blocks[1].channel_mixer
    model.eval()(torch.randn(1, 3, 64, 64))
    assert layer.auxiliary_loss() == 0
    model.train()(torch.randn(1, 3, 64, 64))
    layer.auxiliary_loss().backward()
    assert layer.router.gate.weight.grad.abs().max() > 0


def test_more_experts_than_there_are():
    with pytest.raises(VitrailError, match="1 to 2 experts, got 3"):
        TopExpertsRouter(4, num_experts=2, selected=3)
