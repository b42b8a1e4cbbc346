"""A gated MLP, token by token."""

import torch

from vitrail.grid import Grid
from vitrail.parts.channel_mixers import GatedMLP


def test_token_by_token_with_gradients():
    mlp = GatedMLP(4, 6).double()
    x = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    got, want = mlp(x, Grid(1, 5)), []
    for token in x.flatten(0, 1):
        inner = [mlp.fc1.weight[i] @ token + mlp.fc1.bias[i] for i in range(12)]
        gated = [a / (1 + (-a).exp()) * b for a, b in zip(inner[:6], inner[6:], strict=True)]
        want.append(mlp.fc2(torch.stack(gated)))
    want = torch.stack(want).view_as(got)
    torch.testing.assert_close(got, want)
    inputs, seed = (x, *mlp.parameters()), torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), torch.autograd.grad(want, inputs, seed), strict=True):
        torch.testing.assert_close(a, b)
